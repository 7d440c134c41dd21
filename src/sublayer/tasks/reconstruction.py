"""A text, or what was hidden in it, from what is left of it: span corruption (T5) and denoising (BART)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from sublayer import config
from sublayer.data.batch import Batch
from sublayer.data.examples import corrupted
from sublayer.data.examples.corrupted import CorruptedText, Noise
from sublayer.data.ragged import Ragged
from sublayer.data.report import Report
from sublayer.data.tables.documents import Document
from sublayer.data.tables.table import Rows
from sublayer.data.vocabulary import MASK, mask_id, sentence_ends, sentinel_ids, sentinel_tokens
from sublayer.models import SequenceToSequence
from sublayer.tasks.losses import CrossEntropy
from sublayer.tasks.task import DocumentTask, Encoding, Material
from sublayer.tasks.translation import PairLoss, validation_loss
from sublayer.text import PairAffixes, Specials, Tokenizer


@dataclass(frozen=True)
class Reconstructing(PairLoss):
    """examples: with the same noise every time."""

    rows: ClassVar = "texts"

    def evaluate(self, model: SequenceToSequence) -> dict[str, float]:
        loss = validation_loss(model, self.examples, self.batching)
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
        c = material.recipe.training
        return Reconstructing(CrossEntropy(c.label_smoothing), material.examples, c.batches)

    def does(self, recipe: config.Recipe) -> str:
        return "Restores what is missing in a text; made to be trained further for something else"


class SpanCorruption(Reconstruction[config.SpanCorruptionTask]):
    """What was left out of a text, behind the sentinels that stand in its place."""

    kind: ClassVar = config.SpanCorruptionTask

    def extra_tokens(self) -> tuple[str, ...]:
        return sentinel_tokens(self.settings.sentinels)

    def noise(self, tokenizer: Tokenizer, max_length: int, affixes: PairAffixes) -> corrupted.SpanCorruption:
        sentinels = sentinel_ids(tokenizer, self.settings.sentinels)
        return corrupted.SpanCorruption(max_length, affixes, self.settings, sentinels)


class Denoising(Reconstruction[config.DenoisingTask]):
    """A text from one with spans hidden and its sentences out of order."""

    kind: ClassVar = config.DenoisingTask

    def extra_tokens(self) -> tuple[str, ...]:
        return (MASK,)

    def noise(self, tokenizer: Tokenizer, max_length: int, affixes: PairAffixes) -> corrupted.Denoising:
        return corrupted.Denoising(max_length, affixes, self.settings, mask_id(tokenizer), sentence_ends(tokenizer))
