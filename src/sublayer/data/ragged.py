"""Rows of token ids in a few flat arrays: a hundred thousand short lists would take ten times the memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from sublayer.text import Tokenizer

_CHUNK = 10_000


@dataclass(frozen=True)
class Ragged:
    """N rows of ids of differing length, one after the other. tokens: int32 [sum of lengths]; starts: int64 [N + 1]."""

    tokens: NDArray[np.int32]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> NDArray[np.int32]:
        """The ids of one row."""
        return self.tokens[self.starts[row] : self.starts[row + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Ids of each row, int64 [N]."""
        return np.diff(self.starts)

    @classmethod
    def of(cls, rows: Sequence[NDArray[np.integer] | Sequence[int]]) -> Ragged:
        """These rows, one after the other."""
        starts = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        tokens = np.concatenate([np.asarray(row, dtype=np.int32) for row in rows]) if rows else np.zeros(0, np.int32)
        return cls(tokens, starts)

    def arrays(self) -> Iterator[NDArray[np.generic]]:
        """What it consists of, to recognise it by."""
        yield self.starts
        yield self.tokens

    def take(self, rows: NDArray[np.int64]) -> Ragged:
        """These rows alone, in this order."""
        return self._parts(self.starts[rows], self.starts[rows + 1] - self.starts[rows])

    def within(self, before: Sequence[int], after: Sequence[int]) -> Ragged:
        """Each row between these ids."""
        added = len(before) + len(after)
        starts = self.starts + added * np.arange(len(self.starts))
        tokens = np.empty(int(starts[-1]), dtype=np.int32)
        inside = np.ones(len(tokens), dtype=np.bool_)
        for place, identifier in enumerate(before):
            tokens[starts[:-1] + place] = identifier
            inside[starts[:-1] + place] = False
        for place, identifier in enumerate(after):
            tokens[starts[1:] - len(after) + place] = identifier
            inside[starts[1:] - len(after) + place] = False
        tokens[inside] = self.tokens
        return Ragged(tokens, starts)

    def cut(self, longest: int) -> Ragged:
        """Each row without what stands beyond its first `longest` ids."""
        return self._parts(self.starts[:-1], np.minimum(self.lengths, longest))

    def _parts(self, begins: NDArray[np.int64], lengths: NDArray[np.int64]) -> Ragged:
        """A row of each of these lengths, from the place in `tokens` where it begins."""
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        places = np.arange(int(starts[-1])) + np.repeat(begins - starts[:-1], lengths)
        return Ragged(self.tokens[places], starts)

    def filled(self) -> Ragged:
        """The rows that are not empty."""
        return self.take(np.flatnonzero(self.lengths))

    def rectangle(self, fill: int) -> NDArray[np.int64]:
        """All rows, as wide as the longest, the rest `fill`."""
        lengths = self.lengths
        out = np.full((len(self), int(lengths.max())), fill, dtype=np.int64)
        # Row by row, the places inside are the ids in order: one assignment instead of a loop over the rows.
        out[np.arange(out.shape[1]) < lengths[:, None]] = self.tokens
        return out


def encode_texts(texts: Sequence[str], tokenizer: Tokenizer) -> Ragged:
    """The ids of each text, without special tokens."""
    parts: list[NDArray[np.int32]] = []
    lengths: list[int] = []
    for first in range(0, len(texts), _CHUNK):
        batch = tokenizer.encode(texts[first : first + _CHUNK])
        lengths.extend(map(len, batch))
        parts.append(np.fromiter(chain.from_iterable(batch), dtype=np.int32))
    starts = np.cumsum([0, *lengths], dtype=np.int64)
    return Ragged(np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32), starts)
