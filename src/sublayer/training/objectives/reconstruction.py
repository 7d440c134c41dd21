"""Span corruption and denoising: what was hidden in a text, or the text itself, from what is left of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from sublayer import config
from sublayer.data.batch import Batch
from sublayer.data.examples.interface import Examples
from sublayer.data.loader import validation
from sublayer.models import SequenceToSequence
from sublayer.training.losses import CrossEntropy
from sublayer.training.objective import evaluating
from sublayer.training.objectives.translation import PairLoss, pair_loss


@dataclass(frozen=True)
class Reconstructing(PairLoss):
    """examples: the validation text, with the same noise every time."""

    examples: Examples[Batch]
    batching: config.Batching
    rows: str = "texts"
    unit: str = "tokens"
    least: int = 0

    def evaluate(self, model: SequenceToSequence) -> dict[str, float]:
        plain = CrossEntropy(label_smoothing=0.0)
        total, targets = 0.0, 0
        with evaluating(model):
            for batch in validation(self.examples, self.batching):
                total += pair_loss(model, batch, 1, plain).item()
                targets += batch.targets
        return {"loss": total / targets, "perplexity": math.exp(total / targets)}

    def illustrate(self, folder: Path) -> None:
        """Two numbers say it."""
