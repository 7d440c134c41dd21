"""Cutting attention into pieces, so that it costs what the allowed pairs cost.

Where every query sees an interval of keys (its past, its window, its own text in a packed row, what is not padding),
neighbouring queries see nearly the same ones:

    keys     0 1 2 3 4 5 6 7
    query 0  x . . . . . . .
    query 1  x x . . . . . .       two packed texts: queries 0-2 need keys 0-2, queries 3-7 keys 3-7
    query 2  x x x . . . . .
    query 3  . . . x . . . .
    ...

A piece is some neighbouring queries and the keys that any of them sees. Pieces are found on numbers alone; what is
allowed within one is a small mask (`nn/mask.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

# What one more call of the kernel costs, in pairs. With 4 heads of 64, forward and backward, one thread, calls on 8
# tokens took as long as 2,500 pairs do in calls on 256 and more. It is not measured on each machine: with AVX-512 and
# with AVX2 (simulated) alike, texts of 16 to 400 tokens and windows of 128 took times within 30 percent of each other
# for 2**10, 2**11 and 2**12, in no order that stayed, while another program ran. 2**14 cost texts of 50 up to twice.
CALL = 2**11
# Masks of fewer pairs are left whole without a look: looking takes longer than what could be gained.
SMALL = 2**14
# Pieces are taken where they cost this much of the whole, at most.
WORTH = 0.9
# The fewest queries that a band is cut into: below that the kernel's own blocks are no longer filled.
SMALLEST = 64


@dataclass(frozen=True)
class Piece:
    """Neighbouring queries, and the keys that any of them sees; no keys where they see nothing.

    causal: each query sees one key more than the one before it, from the first on; a kernel may know that by itself.
    """

    queries: slice
    keys: slice
    causal: bool = False

    @property
    def pairs(self) -> int:
        """How many pairs a kernel computes for it."""
        square = (self.queries.stop - self.queries.start) * (self.keys.stop - self.keys.start)
        return square // 2 if self.causal else square

    @property
    def cost(self) -> int:
        """What it takes to compute, in pairs."""
        return self.pairs + CALL if self.pairs else 0


def plan(begin: Integers, end: Integers, keys: int, *, causal: bool = False) -> list[tuple[int, list[Piece]]] | None:
    """Return how many rows are cut alike, and how, from the first row to the last; None where that gains nothing.

    Args:
        begin, end: what each query sees, as for `cut`, int64 [R, S]. keys: how many there are. causal: whether the
            kernel can take all rows as a causal square, of which it computes half.
    """
    same = (begin[1:] == begin[:-1]).all(1) & (end[1:] == end[:-1]).all(1)
    starts = [0, *(np.flatnonzero(~same) + 1).tolist(), len(begin)]
    found = [(after - row, cut(begin[row], end[row])) for row, after in pairwise(starts)]
    whole = Piece(slice(0, begin.shape[1]), slice(0, keys), causal)
    # A call is one call, for however many rows.
    cost = sum(count * piece.pairs + CALL for count, several in found for piece in several if piece.pairs)
    # Where no query sees anything there is nothing to call, but gradients still want a way through.
    return found if 0 < cost <= WORTH * (len(begin) * whole.pairs + CALL) else None


def is_small(queries: int, keys: int) -> bool:
    """Return whether cutting cannot gain anything, whatever the mask."""
    return queries * keys < SMALL


def cut(begin: Integers, end: Integers) -> list[Piece]:
    """Return pieces that hold every query once, in order, with all the keys that it sees.

    Query i sees the keys from begin[i] up to end[i] - 1, and nothing where end[i] <= begin[i].

    Args:
        begin, end: int64 [S], S at least 1.
    """
    empty = end <= begin
    # An empty interval takes no part in the smallest and the largest.
    first, last = np.where(empty, np.iinfo(np.int64).max, begin), np.where(empty, 0, end)
    bounds = _merged(_apart(first, last, empty), first, last)
    return [piece for a, b in pairwise(bounds) for piece in _bands(_piece(a, b, first, last), first, last)]


def _piece(a: int, b: int, first: Integers, last: Integers) -> Piece:
    stop = int(last[a:b].max())
    start = int(first[a:b].min()) if stop else 0
    causal = (
        b - a == stop - start
        and bool((first[a:b] == start).all())
        and bool((last[a:b] == np.arange(start + 1, stop + 1)).all())
    )
    return Piece(slice(a, b), slice(start, stop), causal)


def _cost(queries: int, keys: int) -> int:
    return Piece(slice(0, queries), slice(0, keys)).cost


def _apart(first: Integers, last: Integers, empty: NDArray[Any]) -> list[int]:
    """Return where to cut such that no key is seen from both sides of a cut, and S at the end."""
    before = np.maximum.accumulate(last)[:-1]
    after = np.minimum.accumulate(first[::-1])[::-1][1:]
    # Among queries that see nothing there is nothing to cut.
    where = np.flatnonzero((before <= after) & ~(empty[:-1] & empty[1:])) + 1
    return [0, *where.tolist(), len(first)]


def _merged(bounds: list[int], first: Integers, last: Integers) -> list[int]:
    """Return the bounds without those between neighbours that cost less together: small texts share a call."""
    starts = np.array(bounds[:-1])
    lows, highs = np.minimum.reduceat(first, starts).tolist(), np.maximum.reduceat(last, starts).tolist()
    kept: list[int] = [0]
    low, high = lows[0], highs[0]
    for a, b, next_low, next_high in zip(bounds[1:-1], bounds[2:], lows[1:], highs[1:], strict=True):
        both_low, both_high = min(low, next_low), max(high, next_high)
        apart = _cost(a - kept[-1], max(0, high - low)) + _cost(b - a, max(0, next_high - next_low))
        if _cost(b - kept[-1], max(0, both_high - both_low)) < apart:
            low, high = both_low, both_high
        else:
            kept.append(a)
            low, high = next_low, next_high
    return [*kept, bounds[-1]]


def _bands(piece: Piece, first: Integers, last: Integers) -> list[Piece]:
    """Return the piece, or several in its place where each query sees few of its keys."""
    a, b = piece.queries.start, piece.queries.stop
    width = int((last[a:b] - np.minimum(first[a:b], last[a:b])).max())
    step = max(SMALLEST, width // 2)
    if piece.causal or b - a <= step:
        return [piece]
    bands = [_piece(c, min(c + step, b), first, last) for c in range(a, b, step)]
    return bands if sum(band.cost for band in bands) < piece.cost else [piece]
