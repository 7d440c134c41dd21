"""Denoising (BART): a text from one with spans hidden and its sentences out of order."""

from __future__ import annotations

from typing import ClassVar

from sublayer import config
from sublayer.data.examples import corrupted
from sublayer.data.vocabulary import MASK, mask_id, sentence_ends
from sublayer.tasks.reconstruction import Reconstruction
from sublayer.text import PairAffixes, Tokenizer


class Denoising(Reconstruction[config.DenoisingTask]):
    """The whole text."""

    kind: ClassVar = config.DenoisingTask

    def extra_tokens(self) -> tuple[str, ...]:
        return (MASK,)

    def noise(self, tokenizer: Tokenizer, max_length: int, affixes: PairAffixes) -> corrupted.Denoising:
        return corrupted.Denoising(max_length, affixes, self.settings, mask_id(tokenizer), sentence_ends(tokenizer))
