"""What a model is trained for, as the loop sees it: a loss, and an evaluation."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from sublayer import config
from sublayer.models.evaluating import evaluating as in_evaluation_mode


@dataclass(frozen=True)
class Measure:
    """A number that an evaluation gives. title: for people. better: which way. digits: behind the point."""

    title: str
    better: Literal["lower", "higher"]
    digits: int

    def improves(self, value: float, on: float) -> bool:
        """Whether `value` is better than `on`."""
        return value < on if self.better == "lower" else value > on


MEASURES: Mapping[str, Measure] = {
    "loss": Measure("loss", "lower", 3),
    "bleu": Measure("BLEU", "higher", 1),
    "perplexity": Measure("perplexity", "lower", 2),
    "word_perplexity": Measure("perplexity of a word", "lower", 2),
    "accuracy": Measure("accuracy", "higher", 4),
    "macro_f1": Measure("macro F1", "higher", 4),
    "span_f1": Measure("F1 of spans", "higher", 4),
    "recall_at_1": Measure("recall at 1", "higher", 4),
    "exact_match": Measure("exact answers", "higher", 4),
}
"""All that any task measures; which does which stands in the configuration's tasks."""


def shown(found: Mapping[str, float]) -> str:
    """An evaluation on one line."""
    return ", ".join(f"{MEASURES[name].title} {value:.{MEASURES[name].digits}f}" for name, value in found.items())


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
        """The model as it stands, judged on the validation text, without dropout; the keys are of `MEASURES`."""
        ...

    def illustrate(self, folder: Path) -> None:
        """Draw what the last evaluation found, where a number does not say it all."""
        ...


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Inside the block: no dropout, no gradients; afterwards the model is in the mode that it was in."""
    with in_evaluation_mode(model), torch.inference_mode():
        yield
