"""Pairs as token ids, in a few flat arrays: a hundred thousand short lists would take ten times the memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sublayer.data.batch import IGNORE, Batch, as_tensor
from sublayer.data.report import Report
from sublayer.data.sources import Pairs
from sublayer.errors import DataError
from sublayer.text import PairAffixes, Tokenizer

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
        starts = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=starts[1:])
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

    def padded(self, rows: NDArray[np.int64], *, width: int, offset: int, fill: int) -> NDArray[np.int64]:
        """`rows` as int64 [len(rows), width], each beginning at column `offset`, the rest `fill`."""
        lengths = self.starts[rows + 1] - self.starts[rows]
        out = np.full((len(rows), width), fill, dtype=np.int64)
        column = np.arange(width) - offset
        inside = (column >= 0) & (column < lengths[:, None])
        # Row by row, the places of `inside` are the ids in order: one gather instead of a loop over the rows.
        before = np.cumsum(lengths) - lengths
        places = np.arange(int(lengths.sum())) + np.repeat(self.starts[rows] - before, lengths)
        out[inside] = self.tokens[places]
        return out


class Unchanging:
    """Examples whose rows are the same in every epoch; whom they meet in a batch is not."""

    def epoch(self, seed: int, number: int) -> Self:
        return self

    def fixed(self) -> Self:
        return self


@dataclass(frozen=True)
class EncodedPairs(Unchanging):
    """Pairs as ids, without special tokens, those over the length limit left out.

    rows: int64 [N], where each stands in the `Pairs` it came from. report: what was left out, and why.
    """

    sources: Ragged
    targets: Ragged
    rows: NDArray[np.int64]
    report: Report
    affixes: PairAffixes

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def source_lengths(self) -> NDArray[np.int64]:
        """Tokens of each source, affixes included: int64 [N]."""
        return self.sources.lengths + self.affixes.source.length

    @property
    def target_lengths(self) -> NDArray[np.int64]:
        """Tokens of each target, affixes included: int64 [N]."""
        return self.targets.lengths + self.affixes.target_length

    def arrays(self) -> Iterator[NDArray[np.generic]]:
        """What decides the batches, to recognise the text by."""
        return chain(self.sources.arrays(), self.targets.arrays())

    def collate(self, rows: NDArray[np.int64]) -> Batch:
        """The tensors of `rows` with their affixes, padded to the longest."""
        return pair_batch(self.sources.take(rows), self.targets.take(rows), rows, self.affixes)


def pair_batch(sources: Ragged, targets: Ragged, rows: NDArray[np.int64], affixes: PairAffixes) -> Batch:
    """Sources and targets as a batch with their affixes, padded to the longest."""
    every = np.arange(len(rows))
    read = sources.within(affixes.source.before, affixes.source.after)
    fed, said = targets.within((affixes.start, *affixes.forced), ()), targets.within(affixes.forced, (affixes.end,))
    lengths = said.lengths
    return Batch(
        source=as_tensor(read.padded(every, width=int(read.lengths.max()), offset=0, fill=affixes.pad)),
        source_lengths=as_tensor(read.lengths),
        target_in=as_tensor(fed.padded(every, width=int(lengths.max()), offset=0, fill=affixes.pad)),
        target_out=as_tensor(said.padded(every, width=int(lengths.max()), offset=0, fill=IGNORE)),
        target_lengths=as_tensor(lengths),
        rows=rows,
        target_tokens=int(lengths.sum()),
    )


def encode(
    pairs: Pairs, tokenizer: Tokenizer, max_length: int, affixes: PairAffixes, *, positions: int | None = None
) -> EncodedPairs:
    """`pairs` as ids. A pair with more than `max_length` tokens on a side, affixes included, is left out whole and
    counted in the report, by line; nothing is cut.

    Args:
        positions: where every pair is to be scored: a side with more tokens than these is cut there, and that is noted.

    Raises:
        DataError: no pair is left.
    """
    sides = [
        (encode_texts(pairs.sources, tokenizer), affixes.source.length),
        (encode_texts(pairs.targets, tokenizer), affixes.target_length),
    ]
    (sources, targets), kept, report = fitting(pairs, sides, max_length, positions)
    return EncodedPairs(sources, targets, kept, report, affixes)


def fitting(
    pairs: Pairs, sides: Sequence[tuple[Ragged, int]], max_length: int, positions: int | None
) -> tuple[list[Ragged], NDArray[np.int64], Report]:
    """The two sides of the pairs that fit, which these are, and a report of the rest.

    Args:
        sides: each with the number of tokens that stand around a text. max_length, positions: as in `encode`.

    Raises:
        DataError: none does.
    """
    most = max_length if positions is None else positions
    fits = np.logical_and(*(ids.lengths + around <= most for ids, around in sides))
    long = np.flatnonzero(~fits)
    lines, reason = pairs.lines_of(long.tolist()), f"over {most} tokens a side"
    if positions is not None:
        report = pairs.report.note(f"{reason}, cut there to be scored", lines, len(long))
        return [ids.cut(most - around) for ids, around in sides], np.arange(len(pairs)), report
    if not fits.any():
        raise DataError(f"none of {len(pairs)} pairs has at most {most} tokens a side", "Raise data.max_length.")
    kept = np.flatnonzero(fits).astype(np.int64)
    return [ids.take(kept) for ids, _ in sides], kept, pairs.report.leave_out(reason, lines, len(long))


def encode_texts(texts: Sequence[str], tokenizer: Tokenizer) -> Ragged:
    """The ids of each text, without special tokens."""
    parts: list[NDArray[np.int32]] = []
    lengths: list[int] = []
    for first in range(0, len(texts), _CHUNK):
        batch = tokenizer.encode(texts[first : first + _CHUNK])
        lengths.extend(map(len, batch))
        parts.append(np.fromiter(chain.from_iterable(batch), dtype=np.int32))
    starts = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    return Ragged(np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32), starts)
