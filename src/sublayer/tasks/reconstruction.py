"""What span corruption and denoising have in common: a text, or what was hidden in it, from what is left of it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from sublayer import config
from sublayer.data.batch import Batch
from sublayer.data.examples.corrupted import CorruptedText, Noise
from sublayer.data.examples.interface import Examples
from sublayer.data.ragged import Ragged, encode_texts
from sublayer.data.report import Report
from sublayer.data.tables.documents import DOCUMENTS, Document
from sublayer.data.tables.table import Rows
from sublayer.models import SequenceToSequence
from sublayer.tasks.losses import CrossEntropy
from sublayer.tasks.task import Encoding, Material, Task
from sublayer.tasks.translation import PairLoss, validation_loss
from sublayer.text import PairAffixes, Specials, Tokenizer


@dataclass(frozen=True)
class Reconstructing(PairLoss):
    """examples: the validation text, with the same noise every time."""

    examples: Examples[Batch]
    batching: config.Batching
    rows: ClassVar = "texts"
    unit: ClassVar = "tokens"

    def evaluate(self, model: SequenceToSequence) -> dict[str, float]:
        loss = validation_loss(model, self.examples, self.batching)
        return {"loss": loss, "perplexity": math.exp(loss)}


C = TypeVar("C", bound=config.TaskSettings)


class Reconstruction(Task[C, Rows[Document], CorruptedText[Batch]]):
    """Restores what noise took from a text."""

    reader: ClassVar = DOCUMENTS
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

    def examples(self, table: Rows[Document], how: Encoding) -> CorruptedText[Batch]:
        return self.of_ids([encode_texts(table.texts(), how.tokenizer)], table.report, how)

    def of_ids(self, columns: Sequence[Ragged], report: Report, how: Encoding) -> CorruptedText[Batch]:
        noise = self.noise(how.tokenizer, how.max_length, PairAffixes.of(how.tokenizer, how.decoding))
        return CorruptedText(columns[0].filled(), noise, report)

    def objective(self, material: Material[Rows[Document], CorruptedText[Batch]]) -> Reconstructing:
        c = material.recipe.training
        return Reconstructing(CrossEntropy(c.label_smoothing), material.examples, c.batches)

    def does(self, recipe: config.Recipe) -> str:
        return "Restores what is missing in a text; made to be trained further for something else"
