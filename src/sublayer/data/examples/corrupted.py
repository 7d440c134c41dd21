"""Plain text of which something is hidden: for masked language modelling, span corruption and denoising.

A document longer than a row goes on in the next one, with the cuts elsewhere in every epoch; what is hidden is drawn
anew in every epoch, row by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from sublayer.config import DenoisingTask, MaskedTask, SpanCorruptionTask
from sublayer.data.batch import IGNORE, Batch, TextBatch, as_tensor
from sublayer.data.encoding import pair_batch
from sublayer.data.noise import corrupt_spans, infill, mask_tokens, span_counts
from sublayer.data.packing import Integers, Pieces, cut
from sublayer.data.ragged import Ragged
from sublayer.data.report import Report
from sublayer.data.vocabulary import Words
from sublayer.text import Affixes, PairAffixes

BatchT = TypeVar("BatchT")
BatchT_co = TypeVar("BatchT_co", covariant=True)


class Noise(Protocol[BatchT_co]):
    """What is done to the tokens of a row, and what batch the rows make."""

    @property
    def room(self) -> int:
        """Tokens that a row can take."""
        ...

    def sizes(self, lengths: Integers) -> tuple[Integers, Integers]:
        """Source and target lengths, at most, of rows of so many tokens."""
        ...

    def apply(self, tokens: Integers, random: np.random.Generator) -> tuple[Integers, Integers]: ...

    def batch(self, given: list[Integers], target: list[Integers], rows: Integers) -> BatchT_co: ...


@dataclass(frozen=True)
class CorruptedText(Generic[BatchT]):
    """Documents as ids, without markers, and what is done to them."""

    texts: Ragged
    noise: Noise[BatchT]
    report: Report

    def __len__(self) -> int:
        return len(self.texts)

    def epoch(self, seed: int, number: int) -> CorruptedRows[BatchT]:
        pieces = cut(self.texts.lengths, self.noise.room, self.noise.room, np.random.default_rng([seed, number, 1]))
        return CorruptedRows(self.texts, pieces, self.noise, (seed, number))

    def fixed(self) -> CorruptedRows[BatchT]:
        pieces = cut(self.texts.lengths, self.noise.room, self.noise.room, None)
        return CorruptedRows(self.texts, pieces, self.noise, (0, 0))

    def arrays(self) -> Iterator[NDArray[np.generic]]:
        return self.texts.arrays()


@dataclass(frozen=True)
class CorruptedRows(Generic[BatchT]):
    """One epoch. when: what the chance of each row depends on besides its number."""

    texts: Ragged
    pieces: Pieces
    noise: Noise[BatchT]
    when: tuple[int, int]

    @property
    def source_lengths(self) -> Integers:
        return self.noise.sizes(self.pieces.lengths)[0]

    @property
    def target_lengths(self) -> Integers:
        return self.noise.sizes(self.pieces.lengths)[1]

    def collate(self, rows: Integers) -> BatchT:
        given: list[Integers] = []
        target: list[Integers] = []
        for row in rows.tolist():
            first = self.texts.starts[self.pieces.text[row]]
            tokens = self.texts.tokens[first + self.pieces.begin[row] : first + self.pieces.end[row]].astype(np.int64)
            one, other = self.noise.apply(tokens, np.random.default_rng([*self.when, 2, row]))
            given.append(one)
            target.append(other)
        return self.noise.batch(given, target, rows)


@dataclass(frozen=True)
class Masking:
    """A text with its affixes, some of its tokens hidden. others: tokens that may stand in for one."""

    c: MaskedTask
    max_length: int
    affixes: Affixes
    mask_id: int
    others: Integers
    words: Words

    @property
    def room(self) -> int:
        return self.max_length - self.affixes.length

    def sizes(self, lengths: Integers) -> tuple[Integers, Integers]:
        return lengths + self.affixes.length, np.zeros_like(lengths)

    def apply(self, tokens: Integers, random: np.random.Generator) -> tuple[Integers, Integers]:
        starts = self.words.starts(tokens)
        return mask_tokens(tokens, self.c, random, starts=starts, mask_id=self.mask_id, others=self.others)

    def batch(self, given: list[Integers], target: list[Integers], rows: Integers) -> TextBatch:
        before, after = self.affixes.before, self.affixes.after
        read = Ragged.of(given).within(before, after)
        wanted = Ragged.of(target).within([IGNORE] * len(before), [IGNORE] * len(after)).rectangle(IGNORE)
        return TextBatch(
            tokens=as_tensor(read.rectangle(self.affixes.pad)),
            lengths=as_tensor(read.lengths),
            target=as_tensor(wanted),
            rows=rows,
            targets=int((wanted != IGNORE).sum()),
        )


@dataclass(frozen=True)
class _Pairs:
    """What is left of a text in, what is to be restored out."""

    max_length: int
    affixes: PairAffixes

    @property
    def room(self) -> int:
        return self.max_length - max(self.affixes.source.length, self.affixes.target_length)

    def batch(self, given: list[Integers], target: list[Integers], rows: Integers) -> Batch:
        return pair_batch(Ragged.of(given), Ragged.of(target), rows, self.affixes)


@dataclass(frozen=True)
class SpanCorruption(_Pairs):
    """Text with sentinels in, what they stand for out."""

    c: SpanCorruptionTask
    sentinels: Integers

    def sizes(self, lengths: Integers) -> tuple[Integers, Integers]:
        distinct, place = np.unique(lengths, return_inverse=True)
        counts = np.array([span_counts(int(n), self.c) for n in distinct.tolist()]).reshape(-1, 2)[place]
        given = lengths - counts[:, 0] + counts[:, 1]
        return given + self.affixes.source.length, counts.sum(axis=1) + self.affixes.target_length

    def apply(self, tokens: Integers, random: np.random.Generator) -> tuple[Integers, Integers]:
        return corrupt_spans(tokens, self.c, random, sentinels=self.sentinels)


@dataclass(frozen=True)
class Denoising(_Pairs):
    """Text with masks and its sentences out of order in, the text out. ends: bool [V], tokens that end a sentence."""

    c: DenoisingTask
    mask_id: int
    ends: NDArray[np.bool_]

    def sizes(self, lengths: Integers) -> tuple[Integers, Integers]:
        return lengths + self.affixes.source.length, lengths + self.affixes.target_length

    def apply(self, tokens: Integers, random: np.random.Generator) -> tuple[Integers, Integers]:
        return infill(tokens, self.c, random, ends=self.ends[tokens], mask_id=self.mask_id)
