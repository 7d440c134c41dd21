"""What a model is trained for, as the loop sees it: a loss, and an evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from sublayer import config
from sublayer.data.batch import AnyBatch
from sublayer.data.examples.interface import Examples
from sublayer.data.loader import validation
from sublayer.models.evaluating import evaluating as in_evaluation_mode
from sublayer.tasks.losses import CrossEntropy


def shown(found: Mapping[str, float]) -> str:
    """An evaluation on one line."""
    measures = ((config.MEASURES[name], value) for name, value in found.items())
    return ", ".join(f"{measure.title} {measure.shown(value)}" for measure, value in measures)


B_contra = TypeVar("B_contra", bound=AnyBatch, contravariant=True)


class Objective(ABC, Generic[B_contra]):
    """What the loop asks about batches of one kind; a model is of whatever shape the task suits.

    rows: what the rows of a batch are called where an error names them; unit: what its targets are, where their speed
    is shown. least: targets that a model sees from scratch before it does anything sensible; 0 where nobody has
    measured it. separable: the loss of a batch is the sum of those of its rows, so that several processes may have some
    each.
    """

    rows: ClassVar[str]
    unit: ClassVar[str]
    least: ClassVar[int] = 0
    separable: ClassVar[bool] = True

    def choices(self, c: config.Model) -> int | None:
        """Among how many a model with the tree `c` chooses each target; None where there is no such number."""
        return None

    @abstractmethod
    def loss(self, model: Any, batch: B_contra, total: int) -> Tensor:
        """The sum over this batch's targets, divided by `total`, those of the whole optimizer step.

        Args:
            model: as `evaluate` has it; its `hidden` may have been compiled.
        """

    @abstractmethod
    def evaluate(self, model: Any) -> dict[str, float]:
        """Evaluate the model as it stands on the validation text, without dropout; keys as in `config.MEASURES`."""

    def plot(self, folder: Path) -> None:  # Where the numbers say it all, nothing is drawn.
        """Draw what the last evaluation found, where a number does not say it all."""


B = TypeVar("B", bound=AnyBatch)


@dataclass(frozen=True)
class TextObjective(Objective[B]):
    """One that is evaluated on text. examples: the validation text. c: the training, whose batches these are."""

    examples: Examples[B]
    c: config.Training


class TokenObjective(TextObjective[B]):
    """Whose targets are tokens of the vocabulary."""

    unit: ClassVar = "tokens"

    @property
    def loss_function(self) -> CrossEntropy:
        return CrossEntropy(self.c.label_smoothing)

    def choices(self, c: config.Model) -> int:
        return c.vocab_size


def nats_and_targets(
    model: nn.Module,
    examples: Examples[B],
    batching: config.Batching,
    loss: Callable[[Any, B, int, CrossEntropy], Tensor],
) -> tuple[float, int]:
    """The cross-entropy of all examples, without label smoothing or dropout, and of how many targets it is.

    Args:
        loss: that of a batch, given the model, the batch, what to divide by, and the cross-entropy.
    """
    plain = CrossEntropy(label_smoothing=0.0)
    nats, targets = 0.0, 0
    with evaluating(model):
        for batch in validation(examples, batching):
            nats += loss(model, batch, 1, plain).item()
            targets += batch.targets
    return nats, targets


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Inside the block: no dropout, no gradients; afterwards the model is in the mode that it was in."""
    with in_evaluation_mode(model), torch.inference_mode():
        yield
