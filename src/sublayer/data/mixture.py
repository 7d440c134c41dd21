"""Rows of several texts in proportion to their weights, in an order that is computed.

Which text a row is of comes again after as many rows as the weights sum up to. Within, each next row is given by
Tijdeman's rule for the chairman assignment problem (1980): of the K texts whose share of the rows so far is ahead of
their rows by at least 1 / (2 K - 2), the one whose share will be ahead by 1 - 1 / (2 K - 2) the soonest. At every row
each text is then away from its share by less than one.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from sublayer.data.permutation import Permutation

Integers = NDArray[np.int64]


def turns(weights: Sequence[int]) -> Integers:
    """Which text has each turn, of as many as the weights sum up to: int64 [sum of weights]."""
    whole, parts = sum(weights), len(weights)
    least = Fraction(1, max(2 * parts - 2, 1))
    given, found = [0] * parts, list[int]()
    for turn in range(1, whole + 1):
        ahead = [Fraction(turn * weight, whole) - count for weight, count in zip(weights, given, strict=True)]
        chosen = min(
            (part for part in range(parts) if ahead[part] >= least),
            key=lambda part: (1 - least - ahead[part]) / weights[part],
        )
        given[chosen] += 1
        found.append(chosen)
    return np.array(found, dtype=np.int64)


class MixedRows:
    """The rows of texts that stand one after the other. weights: of each. firsts: int64 [texts + 1], its first row."""

    def __init__(self, weights: Sequence[int], firsts: Integers) -> None:
        self._weights, self._firsts = np.array(weights, dtype=np.int64), firsts
        self._turns = turns(weights)
        before = np.zeros((len(weights), len(self._turns)), dtype=np.int64)
        for part in range(len(weights)):
            before[part, 1:] = np.cumsum(self._turns == part)[:-1]
        self._before = before

    def rows(self, seed: int, places: Integers) -> Integers:
        """Which rows stand at these places of the endless order. Shape: [n] -> [n]."""
        round_, turn = np.divmod(places, len(self._turns))
        found = np.empty(len(places), dtype=np.int64)
        for part, weight in enumerate(self._weights.tolist()):
            mine = np.flatnonzero(self._turns[turn] == part)
            number = round_[mine] * weight + self._before[part, turn[mine]]
            first, last = (int(each) for each in self._firsts[part : part + 2])
            time, place = np.divmod(number, last - first)
            for again in np.unique(time).tolist():
                these = time == again
                found[mine[these]] = first + Permutation(last - first, seed, again, part)(place[these])
        return found
