"""Texts cut into pieces that fit a row, and pieces packed into rows: nothing is dropped, nothing is learned twice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Pieces:
    """N pieces of texts; text t is covered by its pieces in order.

    text, begin, fresh, end: int64 [N]. Piece i is places begin .. end - 1 of its text; those before `fresh` stood in the
    piece before it and are only context.
    """

    text: Integers
    begin: Integers
    fresh: Integers
    end: Integers

    def __len__(self) -> int:
        return len(self.text)

    @property
    def lengths(self) -> Integers:
        return self.end - self.begin


def cut(lengths: Integers, room: int, stride: int, random: np.random.Generator | None) -> Pieces:
    """Texts of these lengths in pieces of at most `room` places.

    A text that fits is one piece. A longer one goes on, every `stride` places, with room - stride places of context.
    With `random`, the first piece of a longer one has a random length, so that the cuts are elsewhere in every epoch.

    Args:
        lengths: [T], 1 or more each. stride: 1 to `room`.
    """
    first = np.minimum(lengths, room)
    long = np.flatnonzero(lengths > room)
    if random is not None:
        first[long] = random.integers(1, room + 1, size=len(long))
    counts = np.ones(len(lengths), dtype=np.int64)
    counts[long] += -(-(lengths[long] - first[long]) // stride)
    text = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(text)) - np.repeat(np.cumsum(counts) - counts, counts)
    end = np.minimum(first[text] + number * stride, lengths[text])
    fresh = np.where(number == 0, 0, first[text] + (number - 1) * stride)
    begin = np.where(number == 0, 0, np.maximum(0, fresh - (room - stride)))
    return Pieces(text, begin, fresh, end)


def pack(lengths: Integers, room: int, random: np.random.Generator | None) -> list[Integers]:
    """Which pieces share a row, such that no row has more than `room` places: the longest first, each into the fullest
    row that can take it ("best fit decreasing").

    Args:
        lengths: [N], 1 to `room` each. random: the order of pieces of one length; as they stand where left out.
    """
    order = np.arange(len(lengths)) if random is None else random.permutation(len(lengths))
    order = order[np.argsort(-lengths[order], kind="stable")]
    rows: list[list[int]] = []
    # Rows by the places left in them, and the filled of these lists as bits: the lowest one from `length` on is the fit.
    left: list[list[int]] = [[] for _ in range(room + 1)]
    filled = 0
    for piece, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        fits = filled >> length
        if fits:
            space = length + (fits & -fits).bit_length() - 1
            row = left[space].pop()
            if not left[space]:
                filled ^= 1 << space
            rows[row].append(piece)
        else:
            space, row = room, len(rows)
            rows.append([piece])
        left[space - length].append(row)
        filled |= 1 << (space - length)
    return [np.array(row, dtype=np.int64) for row in rows]
