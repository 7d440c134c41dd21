"""Classification: a label for each text, with class weights in the loss and a confusion matrix to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sublayer import config
from sublayer.data.batch import TextBatch
from sublayer.data.examples.interface import Examples
from sublayer.data.examples.texts import EncodedTexts, encode_labelled
from sublayer.data.loader import validation
from sublayer.data.ragged import Ragged
from sublayer.data.tables.labelled import LABELLED_TEXTS, Labelled
from sublayer.data.tables.table import Rows
from sublayer.drawing import attempt
from sublayer.errors import ConfigError, DataError
from sublayer.models import EncoderOnly
from sublayer.reading import Classified, Classifier
from sublayer.tasks.confusion import Confusion, draw_confusion
from sublayer.tasks.objective import TextObjective, evaluating
from sublayer.tasks.task import Encoding, Material, Scored, Scoring, Task, head_labels, measured_lines


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
    return model.read(model.hidden(there.tokens, lengths, there.token_type_ids), lengths).float()


@dataclass(frozen=True)
class Classifying(TextObjective[TextBatch]):
    """labels: in the order of the model's head. weights: [C], or None for equal."""

    labels: Sequence[str]
    weights: Tensor | None
    title: str
    rows: ClassVar = "texts"
    unit: ClassVar = "texts"
    _last: list[Confusion] = field(default_factory=list[Confusion])

    def choices(self, c: config.Model) -> int | None:
        """None where weights make the loss another than that of a choice."""
        return len(self.labels) if self.weights is None else None

    def loss(self, model: EncoderOnly, batch: TextBatch, total: int) -> Tensor:
        found = scores(model, batch)
        weights = None if self.weights is None else self.weights.to(found.device)
        target = batch.target.to(found.device)
        summed = F.cross_entropy(found, target, weights, reduction="sum", label_smoothing=self.c.label_smoothing)
        return summed / total

    def evaluate(self, model: EncoderOnly) -> dict[str, float]:
        """The loss without weights; accuracy; F1 of each label, averaged over the labels."""
        confusion, nats = confused(model, self.examples, self.c.batches, len(self.labels))
        self._last[:] = [confusion]
        measured = {"accuracy": confusion.accuracy, "macro_f1": confusion.macro_f1}
        return {"loss": nats / confusion.count, **measured}

    def plot(self, folder: Path) -> None:
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


class Classification(Task[config.ClassificationTask, Rows[Labelled], EncodedTexts]):
    """A label for a text, or for two texts together."""

    kind: ClassVar = config.ClassificationTask
    reader: ClassVar = LABELLED_TEXTS
    command: ClassVar = 'sublayer classify {model} "..."'

    def labels(self, table: Rows[Labelled]) -> tuple[str, ...]:
        return sorted_labels({row.label for row in table})

    def examples(self, table: Rows[Labelled], how: Encoding) -> EncodedTexts:
        return encode_labelled(table, how.tokenizer, how.max_length, how.labels, positions=how.positions)

    def objective(self, material: Material[Rows[Labelled], EncodedTexts]) -> Classifying:
        recipe, labels = material.recipe, material.labels
        _require_one_right_label(recipe.model)
        weights = None
        if material.training is not None:
            # Weights of labels belong to the training, and so does what they are counted from.
            target = material.training.target
            assert not isinstance(target, Ragged), "a text has one label"
            counts = np.bincount(target, minlength=len(labels))
            weights = label_weights(self.settings.weights, counts)
        return Classifying(material.examples, recipe.training, labels, weights, recipe.name)

    def score(self, loaded: Any, recipe: config.Recipe, table: Rows[Labelled], how: Scoring) -> Scored:
        how.refuse("beam", "length_penalty", "tokenize")
        return with_answers(self, loaded, recipe, table, how, lambda one: one.label)

    def does(self, recipe: config.Recipe) -> str:
        return f"Gives a text one of the labels {', '.join(head_labels(recipe.model))}"


def with_answers(
    task: Task[Any, Rows[Labelled], Any],
    loaded: Classifier,
    recipe: config.Recipe,
    table: Rows[Labelled],
    how: Scoring,
    answer: Callable[[Classified], str | float],
) -> Scored:
    """What the task measures, and, where it is wanted, the answer for each text beside what stands there."""
    found = measured_lines(task, loaded, recipe, table)
    if not how.write:
        return found
    answers = loaded.classify([row.text if row.second is None else (row.text, row.second) for row in table])
    return replace(found, rows=[{**row.plain, "found": answer(one)} for row, one in zip(table, answers, strict=True)])


def sorted_labels(found: set[str]) -> tuple[str, ...]:
    """
    Raises:
        DataError: there is only one.
    """
    if len(found) == 1:
        raise DataError(f"all the training text has one label: '{found.pop()}'", "Check the column of the labels.")
    return tuple(sorted(found))


def _require_one_right_label(tree: config.Model) -> None:
    """
    Raises:
        ConfigError: the head's scores mean something else than which label is right, which is neither trained nor
            measured here.
    """
    head = tree.head if isinstance(tree, config.EncoderOnly) else None
    if isinstance(head, config.Classification) and (head.problem != "single-label" or len(head.labels) == 1):
        raise ConfigError(
            f"model.head.problem = '{head.problem}' with {len(head.labels)} labels: only texts with one right label of "
            "several are trained and measured here",
            'Give the model a new head: start.head = "new", or use it with `sublayer classify` only.',
        )
