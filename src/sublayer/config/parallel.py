"""How a training is shared out over processes."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from sublayer.config.part import Part

__all__ = ["Parallel"]


class Parallel(Part):
    """How a training that `torchrun` starts in several processes is shared out over them. Whatever is set here, the
    batches of a run and its results are those of one process, up to the order of sums.

    data: what the processes that read different rows of a batch keep. "replicate": all of the model each (DDP).
    "shard": a part each of weights, gradients, optimizer and averages, put together a block at a time (FSDP2).
    tensor: how many processes share the matrices of one copy of the model: heads, hidden columns and the vocabulary
    (Megatron-LM). The number of processes is a multiple of it.
    activation_checkpointing: what of a block is computed again on the way back, which saves memory: nothing, all but
    the products and attention ("selective"), or all ("full").
    """

    data: Literal["replicate", "shard"] = "replicate"
    tensor: PositiveInt = 1
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
