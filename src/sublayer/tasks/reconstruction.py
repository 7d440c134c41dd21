"""What span corruption and denoising have in common: a text, or what was hidden in it, from what is left of it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, TypeVar

from sublayer import config
from sublayer.data.batch import Batch
from sublayer.data.examples.corrupted import CorruptedText, Noise
from sublayer.data.ragged import Ragged
from sublayer.data.report import Report
from sublayer.data.tables.documents import Document
from sublayer.data.tables.table import Rows
from sublayer.models import SequenceToSequence
from sublayer.tasks.task import DocumentTask, Encoding, Material
from sublayer.tasks.translation import PairLoss, validation_loss
from sublayer.text import PairAffixes, Specials, Tokenizer


class Reconstructing(PairLoss):
    """examples: with the same noise every time."""

    rows: ClassVar = "texts"

    def evaluate(self, model: SequenceToSequence) -> dict[str, float]:
        loss = validation_loss(model, self.examples, self.c.batches)
        return {"loss": loss, "perplexity": math.exp(loss)}


C = TypeVar("C", bound=config.TaskSettings)


class Reconstruction(DocumentTask[C, CorruptedText[Batch]]):
    """Restores what noise took from a text."""

    command: ClassVar = 'sublayer translate {model} "..."'

    @abstractmethod
    def noise(self, tokenizer: Tokenizer, max_length: int, affixes: PairAffixes) -> Noise[Batch]:
        """What is done to a text.

        Raises:
            ConfigError: the tokenizer lacks a special token.
        """

    def with_template(self, plain: Tokenizer, specials: Specials) -> Tokenizer:
        """Nothing stands around a text: an encoder-decoder's affixes are put on apart."""
        return plain.replace(specials=specials)

    def of_ids(self, columns: Sequence[Ragged], report: Report, how: Encoding) -> CorruptedText[Batch]:
        noise = self.noise(how.tokenizer, how.max_length, PairAffixes.of(how.tokenizer, how.decoding))
        return CorruptedText(columns[0].filled(), noise, report)

    def objective(self, material: Material[Rows[Document], CorruptedText[Batch]]) -> Reconstructing:
        return Reconstructing(material.examples, material.recipe.training)

    def does(self, recipe: config.Recipe) -> str:
        return "Restores what is missing in a text; made to be trained further for something else"
