"""Pairs as token ids, in a few flat arrays: a hundred thousand short lists would take ten times the memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from sublayer.data.report import Report
from sublayer.data.sources import Pairs
from sublayer.errors import DataError
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


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs as ids, without special tokens, those over the length limit left out.

    rows: int64 [N], where each stands in the `Pairs` it came from. report: what was left out, and why.
    """

    sources: Ragged
    targets: Ragged
    rows: NDArray[np.int64]
    report: Report
    pad_id: int
    start_id: int
    end_id: int

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def source_lengths(self) -> NDArray[np.int64]:
        """Tokens of each source, end marker included: int64 [N]."""
        return self.sources.lengths + 1

    @property
    def target_lengths(self) -> NDArray[np.int64]:
        """Tokens of each target, end marker included: int64 [N]."""
        return self.targets.lengths + 1


def encode(pairs: Pairs, tokenizer: Tokenizer, max_length: int) -> EncodedPairs:
    """`pairs` as ids. A pair with more than `max_length` tokens on a side, end marker included, is left out whole and
    counted in the report, by line; nothing is cut.

    Raises:
        DataError: no pair is left.
    """
    sources = _encode(pairs.sources, tokenizer)
    targets = _encode(pairs.targets, tokenizer)
    fits = (sources.lengths < max_length) & (targets.lengths < max_length)
    if not fits.any():
        raise DataError(f"none of {len(pairs)} pairs has at most {max_length} tokens a side", "Raise data.max_length.")
    long = np.flatnonzero(~fits)
    reason = f"over {max_length} tokens a side"
    report = pairs.report.leave_out(reason, pairs.lines_of(long.tolist()), len(long))
    return EncodedPairs(
        sources=_select(sources, fits),
        targets=_select(targets, fits),
        rows=np.flatnonzero(fits).astype(np.int64),
        report=report,
        pad_id=tokenizer.pad_id,
        start_id=tokenizer.start_id,
        end_id=tokenizer.end_id,
    )


def _encode(texts: Sequence[str], tokenizer: Tokenizer) -> Ragged:
    parts: list[NDArray[np.int32]] = []
    lengths: list[int] = []
    for first in range(0, len(texts), _CHUNK):
        batch = tokenizer.encode(texts[first : first + _CHUNK])
        lengths.extend(map(len, batch))
        parts.append(np.fromiter(chain.from_iterable(batch), dtype=np.int32))
    starts = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    return Ragged(np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32), starts)


def _select(ragged: Ragged, keep: NDArray[np.bool_]) -> Ragged:
    if keep.all():
        return ragged
    starts = np.concatenate([[0], np.cumsum(ragged.lengths[keep])]).astype(np.int64)
    return Ragged(ragged.tokens[np.repeat(keep, ragged.lengths)], starts)
