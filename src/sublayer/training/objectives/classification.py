"""Classification: a label for each text, with class weights in the loss and a confusion matrix to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sublayer import config
from sublayer.data.batch import TextBatch
from sublayer.data.examples.interface import Examples
from sublayer.data.loader import validation
from sublayer.drawing import attempt
from sublayer.models import EncoderOnly
from sublayer.training.confusion import Confusion, draw_confusion
from sublayer.training.objective import evaluating


def label_weights(
    c: config.EqualWeights | config.BalancedWeights | config.GivenWeights, counts: NDArray[np.int64]
) -> Tensor | None:
    """How much each label counts, or None where all count the same.

    Args:
        counts: [C], training texts of each label; a label without any counts nothing when balanced.
    """
    match c:
        case config.EqualWeights():
            return None
        case config.BalancedWeights():
            balanced = counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))
            return torch.tensor(np.where(counts > 0, balanced, 0.0), dtype=torch.float32)
        case config.GivenWeights():
            return torch.tensor(c.values, dtype=torch.float32)


def scores(model: EncoderOnly, batch: TextBatch) -> Tensor:
    """Scores of the labels, in float32. Shape: [B, C] for texts, [B, S, C] for tagged words."""
    there = batch.to(model.device)
    full = int(batch.lengths.min()) == batch.tokens.shape[1]
    lengths = None if full else there.lengths
    return model.read(model.hidden(there.tokens, lengths, there.types), lengths).float()


@dataclass(frozen=True)
class Classifying:
    """examples: the validation texts. labels: in the order of the model's head. weights: [C], or None for equal."""

    examples: Examples[TextBatch]
    labels: Sequence[str]
    weights: Tensor | None
    label_smoothing: float
    batching: config.Batching
    title: str
    rows: str = "texts"
    unit: str = "texts"
    least: int = 0
    _last: list[Confusion] = field(default_factory=list[Confusion])

    def choices(self, c: config.Model) -> int | None:
        """None where weights make the loss another than that of a choice."""
        return len(self.labels) if self.weights is None else None

    def loss(self, model: EncoderOnly, batch: TextBatch, total: int) -> Tensor:
        found = scores(model, batch)
        weights = None if self.weights is None else self.weights.to(found.device)
        target = batch.target.to(found.device)
        summed = F.cross_entropy(found, target, weights, reduction="sum", label_smoothing=self.label_smoothing)
        return summed / total

    def evaluate(self, model: EncoderOnly) -> dict[str, float]:
        """The loss without weights; accuracy; F1 of each label, averaged over the labels."""
        confusion, nats = confused(model, self.examples, self.batching, len(self.labels))
        self._last[:] = [confusion]
        measured = {"accuracy": confusion.accuracy, "macro_f1": confusion.macro_f1}
        return {"loss": nats / confusion.count, **measured}

    def illustrate(self, folder: Path) -> None:
        """The confusion matrix of the last evaluation, as confusion.png."""
        if self._last:
            confusion, picture = self._last[0], folder / "confusion.png"
            attempt(picture, lambda: draw_confusion(confusion, self.labels, picture, self.title))


def confused(
    model: EncoderOnly, examples: Examples[TextBatch], batching: config.Batching, labels: int
) -> tuple[Confusion, float]:
    """Which labels the model takes for which, and its negative log-likelihood over all texts, in nats."""
    matrix, nats = np.zeros((labels, labels), dtype=np.int64), 0.0
    with evaluating(model):
        for batch in validation(examples, batching):
            found = scores(model, batch).cpu()
            nats += F.cross_entropy(found, batch.target, reduction="sum").item()
            np.add.at(matrix, (batch.target.numpy(), found.argmax(dim=-1).numpy()), 1)
    return Confusion(matrix), nats
