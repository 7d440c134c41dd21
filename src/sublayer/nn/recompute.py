"""Activation checkpointing: what a function computes on its way is not kept, and is computed again on the way back.

(Chen et al. 2016, https://arxiv.org/abs/1604.06174.) Selectively, the results of products and of fused attention are
kept, which take the time, and all else is computed again, which takes the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from torch import Tensor
from torch.utils import checkpoint as torch_checkpoint
from torch.utils.checkpoint import CheckpointPolicy

from sublayer.nn.context import LayerContext

_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "mkldnn_linear", "_scaled_dot_product", "flex_attention")
"""How the names of the operators begin whose results are kept."""


def recomputed(
    function: Callable[[Tensor, LayerContext], Tensor], x: Tensor, context: LayerContext, *, selective: bool
) -> Tensor:
    """`function` of x and context, with less kept for its gradient; random numbers are drawn the same again."""
    how: dict[str, Any] = {}
    if selective:
        how["context_fn"] = partial(torch_checkpoint.create_selective_checkpoint_contexts, _policy)
    return cast(Tensor, torch_checkpoint.checkpoint(function, x, context, use_reentrant=False, **how))


def _policy(_context: Any, operator: Any, *_arguments: Any, **_named: Any) -> CheckpointPolicy:
    # "aten.addmm.default"
    kept = str(operator).partition(".")[2].startswith(_PRODUCTS)
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE
