"""Masked language modelling: hidden tokens from those around them; only the hidden places are projected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from sublayer import config
from sublayer.data.batch import IGNORE, TextBatch
from sublayer.data.examples.corrupted import CorruptedText, Masking
from sublayer.data.loader import validation
from sublayer.data.ragged import Ragged
from sublayer.data.report import Report
from sublayer.data.tables.documents import Document
from sublayer.data.tables.table import Rows
from sublayer.data.vocabulary import MASK, Words, mask_id, plain_ids
from sublayer.models import EncoderOnly
from sublayer.tasks.losses import CrossEntropy, projected
from sublayer.tasks.objective import TokenObjective, evaluating
from sublayer.tasks.task import DocumentTask, Encoding, Material
from sublayer.text import Affixes


class Unmasking(TokenObjective[TextBatch]):
    """examples: with the same tokens hidden every time."""

    rows: ClassVar = "texts"

    def loss(self, model: EncoderOnly, batch: TextBatch, total: int) -> Tensor:
        hidden, target = _asked(model, batch)
        return projected(model, self.loss_function, hidden, target, total)

    def evaluate(self, model: EncoderOnly) -> dict[str, float]:
        """Accuracy: how often the likeliest token is the one that was hidden."""
        plain = CrossEntropy(label_smoothing=0.0)
        nats, right, targets = 0.0, 0, 0
        with evaluating(model):
            for batch in validation(self.examples, self.c.batches):
                hidden, target = _asked(model, batch)
                nats += projected(model, plain, hidden, target, 1).item()
                right += int((model.project(hidden).argmax(dim=-1) == target).sum())
                targets += batch.targets
        loss = nats / targets
        return {"loss": loss, "perplexity": math.exp(loss), "accuracy": right / targets}


def _asked(model: EncoderOnly, batch: TextBatch) -> tuple[Tensor, Tensor]:
    """What the projection reads at the hidden places, and what stood there. Shape: [1, N, D], [1, N]."""
    there = batch.to(model.device)
    hidden = model.hidden(there.tokens, there.lengths, there.token_type_ids).flatten(0, 1)
    target = there.target.flatten()
    asked = (target != IGNORE).nonzero().squeeze(1)
    return model.read(hidden.index_select(0, asked).unsqueeze(0)), target[asked].unsqueeze(0)


class Masked(DocumentTask[config.MaskedTask, CorruptedText[TextBatch]]):
    """Hidden tokens from those around them."""

    kind: ClassVar = config.MaskedTask
    command: ClassVar = 'sublayer fill {model} "... [MASK] ..."'

    def extra_tokens(self) -> tuple[str, ...]:
        return (MASK,)

    def of_ids(self, columns: Sequence[Ragged], report: Report, how: Encoding) -> CorruptedText[TextBatch]:
        noise = Masking(
            self.settings,
            how.max_length,
            Affixes.of(how.tokenizer),
            mask_id(how.tokenizer),
            plain_ids(how.tokenizer),
            Words.of(how.tokenizer),
        )
        return CorruptedText(columns[0].filled(), noise, report)

    def objective(self, material: Material[Rows[Document], CorruptedText[TextBatch]]) -> Unmasking:
        return Unmasking(material.examples, material.recipe.training)

    def does(self, recipe: config.Recipe) -> str:
        return "Fills in hidden tokens"
