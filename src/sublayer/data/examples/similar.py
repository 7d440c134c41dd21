"""Pairs of texts that belong together, for sentence embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from sublayer.data.batch import SimilarBatch, as_tensor
from sublayer.data.encoding import Unchanging, fitting
from sublayer.data.packing import Integers
from sublayer.data.ragged import Ragged, encode_texts
from sublayer.data.report import Report
from sublayer.data.sources import Pairs
from sublayer.text import Affixes, Tokenizer


@dataclass(frozen=True)
class SimilarPairs(Unchanging):
    """N pairs, both sides with their affixes. same_left, same_right: int64 [N], equal for equal texts."""

    left: Ragged
    right: Ragged
    same_left: Integers
    same_right: Integers
    pad_id: int
    report: Report

    def __len__(self) -> int:
        return len(self.left)

    @property
    def source_lengths(self) -> Integers:
        return self.left.lengths

    @property
    def target_lengths(self) -> Integers:
        return self.right.lengths

    def arrays(self) -> Iterator[NDArray[np.generic]]:
        return chain(self.left.arrays(), self.right.arrays())

    def collate(self, rows: Integers) -> SimilarBatch:
        left, right = self.left.take(rows), self.right.take(rows)
        twins = _equal(self.same_left[rows]) | _equal(self.same_right[rows])
        np.fill_diagonal(twins, False)
        return SimilarBatch(
            left=as_tensor(left.rectangle(self.pad_id)),
            left_lengths=as_tensor(left.lengths),
            right=as_tensor(right.rectangle(self.pad_id)),
            right_lengths=as_tensor(right.lengths),
            twins=torch.from_numpy(twins),  # pyright: ignore[reportUnknownMemberType]
            rows=rows,
        )


def similar_pairs(pairs: Pairs, tokenizer: Tokenizer, max_length: int, *, positions: int | None = None) -> SimilarPairs:
    """`pairs` as texts for one encoder; those with more than `max_length` tokens on a side are left out and counted.

    Args:
        positions: where every pair is to be scored: a side with more tokens than these is cut there, and that is noted.

    Raises:
        DataError: no pair is left.
    """
    affixes = Affixes.of(tokenizer)
    sides = [(encode_texts(side, tokenizer), affixes.length) for side in (pairs.sources, pairs.targets)]
    found, _, report = fitting(pairs, sides, max_length, positions)
    return similar_ids(found, report, affixes)


def similar_ids(sides: Sequence[Ragged], report: Report, affixes: Affixes) -> SimilarPairs:
    """Pairs that are ids already, without what stands around them."""
    left, right = (side.within(affixes.before, affixes.after) for side in sides)
    return SimilarPairs(left, right, _numbered(left), _numbered(right), affixes.pad, report)


def _numbered(texts: Ragged) -> Integers:
    """A number for each text, the same for the same text."""
    known: dict[bytes, int] = {}
    return np.array([known.setdefault(texts[row].tobytes(), len(known)) for row in range(len(texts))], dtype=np.int64)


def _equal(numbers: Integers) -> NDArray[np.bool_]:
    return numbers[:, None] == numbers[None, :]
