"""What a model is trained for, as the loop sees it: a loss, and an evaluation."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sublayer import config
from sublayer.models.evaluating import evaluating as in_evaluation_mode


def shown(found: Mapping[str, float]) -> str:
    """An evaluation on one line."""
    measures = ((config.MEASURES[name], value) for name, value in found.items())
    return ", ".join(f"{measure.title} {measure.shown(value)}" for measure, value in measures)


class Objective(Protocol):
    """What the loop asks.

    rows: what the rows of a batch are called where an error names them; unit: what its targets are, where their speed
    is shown.
    """

    @property
    def rows(self) -> str: ...

    @property
    def unit(self) -> str: ...

    @property
    def least(self) -> int:
        """Targets that a model sees from scratch before it does anything sensible; 0 where nobody has measured it."""
        ...

    def choices(self, c: config.Model) -> int | None:
        """Among how many a model with the tree `c` chooses each target; None where there is no such number."""
        ...

    def loss(self, model: Any, batch: Any, total: int) -> Tensor:
        """The sum over this batch's targets, divided by `total`, those of the whole optimizer step.

        Args:
            model: as `evaluate` has it; its `hidden` may have been compiled.
        """
        ...

    def evaluate(self, model: Any) -> dict[str, float]:
        """The model as it stands, judged on the validation text, without dropout; the keys are of `config.MEASURES`."""
        ...

    def illustrate(self, folder: Path) -> None:
        """Draw what the last evaluation found, where a number does not say it all."""
        ...


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Inside the block: no dropout, no gradients; afterwards the model is in the mode that it was in."""
    with in_evaluation_mode(model), torch.inference_mode():
        yield
