"""Tagging: a tag for each word, evaluated by whole spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

from torch import Tensor
from torch.nn import functional as F

from sublayer import config
from sublayer.data.batch import IGNORE, TextBatch
from sublayer.data.examples.texts import EncodedTexts, encode_tagged
from sublayer.data.loader import validation
from sublayer.data.tables.table import Rows
from sublayer.data.tables.tagged import TAGGED_SENTENCES, Tagged
from sublayer.models import EncoderOnly
from sublayer.tasks.classification import scores, sorted_labels
from sublayer.tasks.objective import TextObjective, evaluating
from sublayer.tasks.spans import span_scores, together
from sublayer.tasks.task import Encoding, Material, Task, head_labels


@dataclass(frozen=True)
class TagWords(TextObjective[TextBatch]):
    """tags: in the order of the model's head."""

    examples: EncodedTexts
    tags: Sequence[str]
    rows: ClassVar = "sentences"
    unit: ClassVar = "words"

    def choices(self, c: config.Model) -> int:
        return len(self.tags)

    def loss(self, model: EncoderOnly, batch: TextBatch, total: int) -> Tensor:
        found = scores(model, batch)
        return _summed(found, batch.target.to(found.device), self.c.label_smoothing) / total

    def evaluate(self, model: EncoderOnly) -> dict[str, float]:
        """Loss and accuracy over words; F1 over all spans together."""
        nats, right, words = 0.0, 0, 0
        true: dict[int, list[str]] = {}
        found: dict[int, list[str]] = {}
        with evaluating(model):
            for batch in validation(self.examples, self.c.batches):
                given = scores(model, batch).cpu()
                nats += _summed(given, batch.target, 0.0).item()
                best, asked = given.argmax(dim=-1), batch.target != IGNORE
                right += int((best == batch.target)[asked].sum())
                words += batch.targets
                for row, wanted, guessed, here in zip(batch.rows.tolist(), batch.target, best, asked, strict=True):
                    true[row], found[row] = self._named(wanted[here]), self._named(guessed[here])
        sentences = (self._sentences(tags) for tags in (true, found))
        span_f1 = together(span_scores(*sentences).values()).f1
        return {"loss": nats / words, "accuracy": right / words, "span_f1": span_f1}

    def _sentences(self, tags: dict[int, list[str]]) -> list[list[str]]:
        """The tags of each sentence, from those of the rows that it was read in."""
        whole: dict[int, list[str]] = {}
        for row, sentence in enumerate(self.examples.kept.tolist()):
            whole.setdefault(sentence, []).extend(tags[row])
        return list(whole.values())

    def _named(self, tags: Tensor) -> list[str]:
        numbers = cast("list[int]", tags.tolist())
        return [self.tags[tag] for tag in numbers]


def _summed(found: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
    flat = found.flatten(0, 1)
    return F.cross_entropy(
        flat, target.flatten(), ignore_index=IGNORE, reduction="sum", label_smoothing=label_smoothing
    )


class Tagging(Task[config.TaggingTask, Rows[Tagged], EncodedTexts]):
    """A tag for each word."""

    kind: ClassVar = config.TaggingTask
    reader: ClassVar = TAGGED_SENTENCES
    command: ClassVar = 'sublayer tag {model} "..."'

    def labels(self, table: Rows[Tagged]) -> tuple[str, ...]:
        return sorted_labels({tag for row in table for tag in row.tags})

    def examples(self, table: Rows[Tagged], how: Encoding) -> EncodedTexts:
        return encode_tagged(table, how.tokenizer, how.max_length, how.labels, positions=how.positions)

    def objective(self, material: Material[Rows[Tagged], EncodedTexts]) -> TagWords:
        return TagWords(material.examples, material.recipe.training, material.labels)

    def does(self, recipe: config.Recipe) -> str:
        return f"Gives each word one of the tags {', '.join(head_labels(recipe.model))}"
