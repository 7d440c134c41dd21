"""Regression: a number for a text, or for two texts together, evaluated by how well it goes with the right ones.

    loss = mean over the texts of (score - number)^2

Correlations are of the scores with the numbers, Pearson's r and Spearman's rho, as for the STS benchmark (Cer et al.
2017, section 6): what matters of a similarity is which pairs are more alike than others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sublayer import config
from sublayer.config.task import RegressionTask
from sublayer.data.batch import TextBatch
from sublayer.data.examples.texts import EncodedTexts, encode_read
from sublayer.data.loader import validation
from sublayer.data.tables.labelled import LABELLED_TEXTS, Labelled
from sublayer.data.tables.table import Rows
from sublayer.errors import DataError
from sublayer.models import EncoderOnly
from sublayer.tasks.classification import scores, with_answers
from sublayer.tasks.objective import TextObjective, evaluating
from sublayer.tasks.task import Encoding, Material, Scored, Scoring, Task, head_labels

NAME = "score"
"""What the number is called where a recipe does not say it (model.head.labels)."""


class Estimating(TextObjective[TextBatch]):
    """The number of each text."""

    rows: ClassVar = "texts"
    unit: ClassVar = "texts"

    def loss(self, model: EncoderOnly, batch: TextBatch, total: int) -> Tensor:
        found = scores(model, batch).squeeze(1)
        return F.mse_loss(found, batch.target.to(found.device, found.dtype), reduction="sum") / total

    def evaluate(self, model: EncoderOnly) -> dict[str, float]:
        """The mean squared error; both correlations, 0 where the scores, or the numbers, are all the same."""
        found: list[float] = []
        right: list[float] = []
        with evaluating(model):
            for batch in validation(self.examples, self.c.batches):
                found += cast("list[float]", scores(model, batch).squeeze(1).tolist())
                right += cast("list[float]", batch.target.tolist())
        one, other = np.array(found), np.array(right)
        return {
            "loss": float(np.mean((one - other) ** 2)),
            "pearson": pearson(one, other),
            "spearman": pearson(ranks(one), ranks(other)),
        }


def pearson(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The correlation of two series of the same length, 0 where one is constant. Shape: [N], [N]."""
    one, other = one - one.mean(), other - other.mean()
    spread = math.sqrt(float((one**2).sum()) * float((other**2).sum()))
    return float((one * other).sum()) / spread if spread else 0.0


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The place of each value among all, from 0; equal values share the mean of theirs. Shape: [N] -> [N]."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[which]


class Regression(Task[RegressionTask, Rows[Labelled], EncodedTexts]):
    """A number for a text, or for two texts together."""

    kind: ClassVar = RegressionTask
    reader: ClassVar = LABELLED_TEXTS
    command: ClassVar = 'sublayer classify {model} "..."'

    def labels(self, table: Rows[Labelled]) -> tuple[str, ...]:
        return (NAME,)

    def examples(self, table: Rows[Labelled], how: Encoding) -> EncodedTexts:
        numbers = np.array([_number(row, table.lines_of([place])) for place, row in enumerate(table)], dtype=np.float32)
        return encode_read(table, how.tokenizer, how.max_length, numbers, positions=how.positions)

    def objective(self, material: Material[Rows[Labelled], EncodedTexts]) -> Estimating:
        return Estimating(material.examples, material.recipe.training)

    def score(self, loaded: Any, recipe: config.Recipe, table: Rows[Labelled], how: Scoring) -> Scored:
        how.refuse("beam", "length_penalty", "tokenize")
        return with_answers(self, loaded, recipe, table, how, lambda one: one.probability)

    def does(self, recipe: config.Recipe) -> str:
        return f"Gives a text a number: {', '.join(head_labels(recipe.model))}"


def _number(row: Labelled, lines: Sequence[int]) -> float:
    """
    Raises:
        DataError: the label is not a number.
    """
    try:
        number = float(row.label)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        where = f" (line {lines[0]})" if lines else ""
        raise DataError(f"the label '{row.label}'{where} is not a number", "Write one, as 4.5.")
    return number
