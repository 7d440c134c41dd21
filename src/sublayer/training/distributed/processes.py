"""What the loop asks that one process answers in another way than many do.

`OneProcess` is all there is where nobody has started several: the model is the one that is trained, judged and saved.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from sublayer import config
from sublayer.data.batch import AnyBatch
from sublayer.data.loader import Share
from sublayer.fast.compiling import torch_compile
from sublayer.models import Model
from sublayer.nn.block import Block
from sublayer.tasks.objective import Objective
from sublayer.training import checkpoint
from sublayer.training.averaging import Average
from sublayer.training.checkpoint import Checkpoint
from sublayer.training.distributed.ranks import Ranks
from sublayer.training.muon import Across
from sublayer.training.progress import Reporter
from sublayer.training.trainable import trainable_parameters

B = TypeVar("B", bound=AnyBatch)


class OneProcess(Generic[B]):
    """A model that is trained by one process.

    ranks: the processes. share: the rows of each batch that this one reads. model: what is trained here; of several
    processes each may hold a part of it only. across: how Muon's matrices are shared out.
    """

    ranks = Ranks()
    share = Share()
    across: Across | None = None

    def __init__(self, model: Model, objective: Objective[B], c: config.Training, reporter: Reporter) -> None:
        self.model, self.objective = model, objective
        set_activation_checkpointing(model, c.parallel.activation_checkpointing)
        self._compiled = _WithHidden(model, compiled(model.hidden, reporter)) if c.compile else model

    def loss(self, batch: B, targets: int) -> Tensor:
        """Of this process' rows, divided by the targets of the whole step; it is summed over all processes."""
        return self.objective.loss(self._compiled, batch, targets)

    def uncompiled_loss(self, batch: B, targets: int) -> Tensor:
        """The same; a compiled function does not call the hooks that look at each module."""
        return self.objective.loss(self.model, batch, targets)

    def sum(self, own: float) -> float:
        """Of all rows, where each process has the number of its own."""
        return own

    def accumulating(self, *, last: bool) -> AbstractContextManager[None]:
        """Around the loss of a batch and its gradients; `last`: no other follows in this step."""
        return nullcontext()

    def gradient_norm(self) -> Tensor:
        """Of all gradients together, once those of a step are there."""
        return torch.nn.utils.get_total_norm([p.grad for p in self._learning if p.grad is not None])

    def clip(self, largest: float, norm: Tensor) -> None:
        """Scale the gradients down to a norm of `largest`, where theirs is more."""
        torch.nn.utils.clip_grads_with_norm_(self._learning, largest, norm)

    @contextmanager
    def whole(self, average: Average) -> Generator[Model | None]:
        """Inside the block the whole model with the averaged weights, in the first process; None in the others."""
        with average.applied():
            yield self.model

    def random_state(self) -> dict[str, Tensor]:
        """The state of the generators of this process, by names that no other process uses."""
        return checkpoint.random_state(self.model.device)

    def restore_random_state(self, saved: Checkpoint) -> None:
        """Go on with the random numbers of a checkpoint."""
        checkpoint.restore_random_state(checkpoint.of_reader(saved.tensors["random"], 0), self.model.device)

    def read(self, path: Path) -> Checkpoint:
        """A checkpoint as this process holds what is in it, however many have written it.

        Raises:
            CheckpointError: it is damaged.
        """
        if not checkpoint.is_sharded(path):
            return checkpoint.read(path)
        from sublayer.training.distributed import sharded

        return sharded.read(path)

    def save(self, folder: Path, saved: Checkpoint, keep: int) -> None:
        """Write a checkpoint; it may only be there after `wait`."""
        checkpoint.write(folder, saved, keep)

    def wait(self) -> None:
        """Until every checkpoint is there that was to be written.

        Raises:
            StorageError: one could not be.
        """

    @cached_property
    def _learning(self) -> list[nn.Parameter]:
        return list(trainable_parameters(self.model).values())


def set_activation_checkpointing(model: nn.Module, how: Any) -> None:
    """Say to every block what it computes again on the way back."""
    for module in model.modules():
        if isinstance(module, Block):
            module.activation_checkpointing = how


def compiled(function: Callable[..., Tensor], reporter: Reporter) -> Callable[..., Tensor]:
    """`torch.compile` of the function; where that does not work here, the function itself, with a word about it."""
    chosen: list[Callable[..., Tensor]] = []

    def run(*arguments: Any) -> Tensor:
        try:
            if not chosen:
                chosen.append(torch_compile(function, dynamic=True))
            return chosen[0](*arguments)
        except Exception as error:
            if chosen == [function]:
                raise
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            reporter.say(f"training.compile does not work here ({reason}); going on without it")
            chosen[:] = [function]
            return function(*arguments)

    return run


class _WithHidden:
    """A model, but for another `hidden`."""

    def __init__(self, model: Model, hidden: Callable[..., Tensor]) -> None:
        self._model, self.hidden = model, hidden

    def __getattr__(self, name: str) -> Any:
        return getattr(cast(Any, self._model), name)
