"""Sentence embeddings: each text must find the one that belongs to it among all others.

    loss_i = - log( exp(s cos(l_i, r_i)) / sum over j of exp(s cos(l_i, r_j)) )

Henderson et al. 2017 (https://arxiv.org/abs/1705.00652), section 4.4, with the cosine and a scale s as in
sentence-transformers. The others are those of the same batch, so a larger batch is a harder task: batches that are
accumulated do not see each other's texts. Texts that are equal to the right answer are not counted as wrong ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from sublayer import config
from sublayer.data.batch import SimilarBatch
from sublayer.data.examples.similar import SimilarPairs, similar_ids, similar_pairs
from sublayer.data.loader import validation
from sublayer.data.ragged import Ragged
from sublayer.data.report import Report
from sublayer.data.sources import PAIRS, Pairs
from sublayer.models import EncoderOnly
from sublayer.tasks.objective import TextObjective, evaluating
from sublayer.tasks.task import Encoding, Material, Task
from sublayer.text import Affixes


@dataclass(frozen=True)
class Matching(TextObjective[SimilarBatch]):
    """scale: s."""

    examples: SimilarPairs
    scale: float
    rows: ClassVar = "pairs"
    unit: ClassVar = "pairs"
    separable: ClassVar = False

    def loss(self, model: EncoderOnly, batch: SimilarBatch, total: int) -> Tensor:
        left, right = _vectors(model, batch)
        return matching_loss(left, right, batch.twins.to(left.device), self.scale) / total

    def evaluate(self, model: EncoderOnly) -> dict[str, float]:
        """The loss in batches as in training; how many left texts are nearest to their own among all right texts."""
        total = 0.0
        left: list[Tensor] = []
        right: list[Tensor] = []
        rows: list[int] = []
        with evaluating(model):
            for batch in validation(self.examples, self.c.batches):
                one, other = _vectors(model, batch)
                total += matching_loss(one, other, batch.twins.to(one.device), self.scale).item()
                left.append(one)
                right.append(other)
                rows += batch.rows.tolist()
            nearest = cast("list[int]", (torch.cat(left) @ torch.cat(right).T).argmax(dim=1).tolist())
        same = self.examples.same_right
        right_ones = sum(same[rows[place]] == same[rows[found]] for place, found in enumerate(nearest))
        return {"loss": total / len(rows), "recall_at_1": right_ones / len(rows)}


def matching_loss(left: Tensor, right: Tensor, twins: Tensor, scale: float) -> Tensor:
    """The loss above, summed over the pairs.

    Shape: left, right [B, D] of length 1, twins [B, B] boolean: wrong answers that do not count -> scalar.
    """
    similarity = (scale * left @ right.T).masked_fill(twins, float("-inf"))
    return F.cross_entropy(similarity, torch.arange(len(left), device=left.device), reduction="sum")


def _vectors(model: EncoderOnly, batch: SimilarBatch) -> tuple[Tensor, Tensor]:
    """Both sides as vectors of length 1, in float32. Shape: [B, D] each."""
    there = batch.to(model.device)
    left = model.read(model.hidden(there.left, there.left_lengths), there.left_lengths)
    right = model.read(model.hidden(there.right, there.right_lengths), there.right_lengths)
    return F.normalize(left.float(), dim=-1), F.normalize(right.float(), dim=-1)


class Embedding(Task[config.EmbeddingTask, Pairs, SimilarPairs]):
    """Vectors that are near for texts that belong together."""

    kind: ClassVar = config.EmbeddingTask
    reader: ClassVar = PAIRS
    command: ClassVar = 'sublayer embed {model} "..."'

    def examples(self, table: Pairs, how: Encoding) -> SimilarPairs:
        return similar_pairs(table, how.tokenizer, how.max_length, positions=how.positions)

    def around(self, how: Encoding) -> tuple[int, ...]:
        return (Affixes.of(how.tokenizer).length,) * 2

    def of_ids(self, columns: Sequence[Ragged], report: Report, how: Encoding) -> SimilarPairs:
        return similar_ids(columns, report, Affixes.of(how.tokenizer))

    def objective(self, material: Material[Pairs, SimilarPairs]) -> Matching:
        return Matching(material.examples, material.recipe.training, self.settings.scale)

    def does(self, recipe: config.Recipe) -> str:
        return "Turns a text into a vector, near for texts that belong together"
