"""Documents packed into rows, for causal language modelling.

A document of n tokens is `start, t1 … tn, end`: n + 1 places, each with the next token as its target. Documents that
share a row have segment numbers; a document longer than a row goes on in another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sublayer.data.batch import IGNORE, TextBatch, as_tensor
from sublayer.data.packing import Integers, Pieces, cut, pack
from sublayer.data.ragged import Ragged
from sublayer.data.report import Report


@dataclass(frozen=True)
class PackedDocuments:
    """Documents with their start and end markers.

    texts: start + ids + end of each. room: places of a row. stride, evaluation_stride: as in `config.CausalTask`.
    """

    texts: Ragged
    room: int
    stride: int
    evaluation_stride: int
    pad_id: int
    report: Report

    def __len__(self) -> int:
        return len(self.texts)

    def epoch(self, seed: int, number: int) -> PackedRows:
        """Long documents are cut, and documents share rows, differently in every epoch."""
        # 1: not the numbers that the plan of the batches draws.
        return self._rows(self.stride, np.random.default_rng([seed, number, 1]))

    def fixed(self) -> PackedRows:
        """Cuts and rows without chance; every token is a target once, with all the context that a row has room for."""
        return self._rows(self.evaluation_stride, None)

    def arrays(self) -> Iterator[NDArray[np.generic]]:
        return self.texts.arrays()

    def _rows(self, stride: int, random: np.random.Generator | None) -> PackedRows:
        pieces = cut(self.texts.lengths - 1, self.room, stride, random)
        return PackedRows(self.texts, pieces, pack(pieces.lengths, self.room, random), self.pad_id)


@dataclass(frozen=True)
class PackedRows:
    """One epoch: the pieces, and which of them stand in each row."""

    texts: Ragged
    pieces: Pieces
    packed: list[Integers]
    pad_id: int

    @property
    def source_lengths(self) -> Integers:
        lengths = self.pieces.lengths
        return np.array([int(lengths[row].sum()) for row in self.packed], dtype=np.int64)

    @property
    def target_lengths(self) -> Integers:
        return np.zeros(len(self.packed), dtype=np.int64)

    def collate(self, rows: Integers) -> TextBatch:
        """The pieces of each row, one after the other."""
        lengths = self.pieces.lengths
        numbers: list[int] = rows.tolist()
        chosen = [self.packed[row] for row in numbers]
        sizes = np.array([int(lengths[pieces].sum()) for pieces in chosen], dtype=np.int64)
        shape = (len(rows), int(sizes.max()))
        tokens = np.full(shape, self.pad_id, dtype=np.int64)
        target = np.full(shape, IGNORE, dtype=np.int64)
        segments = np.zeros(shape, dtype=np.int64)
        targets = 0
        for row, pieces in enumerate(chosen):
            place = 0
            for number, piece in enumerate(pieces.tolist()):
                begin, fresh, end = (
                    int(each[piece]) for each in (self.pieces.begin, self.pieces.fresh, self.pieces.end)
                )
                after = place + end - begin
                first = int(self.texts.starts[self.pieces.text[piece]])
                tokens[row, place:after] = self.texts.tokens[first + begin : first + end]
                target[row, after - (end - fresh) : after] = self.texts.tokens[first + fresh + 1 : first + end + 1]
                segments[row, place:after] = number
                targets += end - fresh
                place = after
            # Padding is a text of its own: no real token shares its number.
            segments[row, place:] = len(pieces)
        alone = all(len(pieces) == 1 for pieces in chosen)
        return TextBatch(
            tokens=as_tensor(tokens),
            lengths=as_tensor(sizes),
            target=as_tensor(target),
            rows=rows,
            targets=targets,
            # One text a row: padding on the right is nothing that a token before it sees.
            segments=None if alone else as_tensor(segments),
        )
