"""Pairs as token ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sublayer.data.batch import IGNORE, Batch, as_tensor
from sublayer.data.ragged import Ragged, encode_texts
from sublayer.data.report import Report
from sublayer.data.sources import Pairs
from sublayer.errors import DataError
from sublayer.text import PairAffixes, Tokenizer


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
    read = sources.within(affixes.source.before, affixes.source.after)
    fed, said = targets.within((affixes.start, *affixes.forced), ()), targets.within(affixes.forced, (affixes.end,))
    lengths = said.lengths
    return Batch(
        source=as_tensor(read.rectangle(affixes.pad)),
        source_lengths=as_tensor(read.lengths),
        target_in=as_tensor(fed.rectangle(affixes.pad)),
        target_out=as_tensor(said.rectangle(IGNORE)),
        target_lengths=as_tensor(lengths),
        rows=rows,
        targets=int(lengths.sum()),
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
    lines, reason = pairs.lines_of(long.tolist()), over(most)
    if positions is not None:
        report = pairs.report.note(f"{reason}, cut there to be scored", lines, len(long))
        return [ids.cut(most - around) for ids, around in sides], np.arange(len(pairs)), report
    if not fits.any():
        raise none_fits(len(pairs), most)
    kept = np.flatnonzero(fits).astype(np.int64)
    return [ids.take(kept) for ids, _ in sides], kept, pairs.report.leave_out(reason, lines, len(long))


def over(most: int) -> str:
    """What pairs are that have more tokens on a side."""
    return f"over {most} tokens a side"


def none_fits(pairs: int, most: int) -> DataError:
    """What is to be raised where none of so many pairs fits."""
    return DataError(f"none of {pairs} pairs has at most {most} tokens a side", "Raise data.max_length.")
