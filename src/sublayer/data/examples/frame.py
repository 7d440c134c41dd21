"""What stands around a text that an encoder reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sublayer.data.encoding import Ragged
from sublayer.text import Tokenizer


@dataclass(frozen=True)
class Frame:
    """Ids before a text, after it, and between two texts that are read together. pad_id: fills up a row."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    pad_id: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Frame:
        """`start text end`, and `start text end second end`."""
        start, end = tokenizer.start_id, tokenizer.end_id
        return cls((start,), (end,), (end,), tokenizer.pad_id)

    @property
    def added(self) -> int:
        """How many tokens stand around one text."""
        return len(self.before) + len(self.after)

    def around(self, texts: Ragged) -> Ragged:
        """Each text with what stands around it."""
        after = len(self.after)
        starts = np.concatenate([[0], np.cumsum(texts.lengths + self.added)]).astype(np.int64)
        tokens = np.empty(int(starts[-1]), dtype=np.int32)
        inside = np.ones(len(tokens), dtype=np.bool_)
        for place, identifier in enumerate(self.before):
            tokens[starts[:-1] + place] = identifier
            inside[starts[:-1] + place] = False
        for place, identifier in enumerate(self.after):
            tokens[starts[1:] - after + place] = identifier
            inside[starts[1:] - after + place] = False
        tokens[inside] = texts.tokens
        return Ragged(tokens, starts)

    def around_two(self, first: Ragged, second: Ragged) -> tuple[Ragged, NDArray[np.int64]]:
        """Each two texts with what stands around and between them, and where the second one begins: int64 [N]."""
        begins = first.lengths + len(self.before) + len(self.between)
        rows = [
            [*self.before, *first[row].tolist(), *self.between, *second[row].tolist(), *self.after]
            for row in range(len(first))
        ]
        return Ragged.of(rows), begins
