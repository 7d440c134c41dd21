"""Span corruption (T5): what was left out of a text, behind the sentinels that stand in its place."""

from __future__ import annotations

from typing import ClassVar

from sublayer import config
from sublayer.data.examples import corrupted
from sublayer.data.vocabulary import sentinel_ids, sentinel_tokens
from sublayer.tasks.reconstruction import Reconstruction
from sublayer.text import PairAffixes, Tokenizer


class SpanCorruption(Reconstruction[config.SpanCorruptionTask]):
    """Spans that were left out."""

    kind: ClassVar = config.SpanCorruptionTask

    def extra_tokens(self) -> tuple[str, ...]:
        return sentinel_tokens(self.settings.sentinels)

    def noise(self, tokenizer: Tokenizer, max_length: int, affixes: PairAffixes) -> corrupted.SpanCorruption:
        sentinels = sentinel_ids(tokenizer, self.settings.sentinels)
        return corrupted.SpanCorruption(max_length, affixes, self.settings, sentinels)
