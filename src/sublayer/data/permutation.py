"""A random order of any number of rows that is computed, and not kept.

A Feistel network (Luby and Rackoff 1988) is a bijection of the numbers of 2h bits, whatever its round function: each
round adds to one half a function of the other. What falls outside 0 … n - 1 is sent through again until it falls inside
("cycle walking", Black and Rogaway 2002), which leaves a bijection of 0 … n - 1.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.uint64]

ROUNDS = 6
_SMALLEST = 4
"""Bits of a half at least: of few bits there are too few networks."""


class Permutation:
    """The numbers 0 … `size` - 1 in an order that is a pure function of `size` and `seeds`."""

    def __init__(self, size: int, *seeds: int) -> None:
        self.size = size
        self._bits = max(((size - 1).bit_length() + 1) // 2, _SMALLEST)
        said = " ".join(map(str, seeds)).encode()
        drawn = (hashlib.blake2b(said, digest_size=8, salt=bytes([number])).digest() for number in range(ROUNDS))
        self._keys = [np.uint64(int.from_bytes(each, "big")) for each in drawn]

    def __call__(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which numbers stand at these places. Shape: [n] -> [n]."""
        numbers = self._network(places.astype(np.uint64))
        outside = np.flatnonzero(numbers >= self.size)
        while len(outside):
            numbers[outside] = self._network(numbers[outside])
            outside = outside[numbers[outside] >= self.size]
        return numbers.astype(np.int64)

    def _network(self, numbers: Numbers) -> Numbers:
        shift, mask = np.uint64(self._bits), np.uint64((1 << self._bits) - 1)
        left, right = numbers >> shift, numbers & mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right + key) & mask)
        return left << shift | right


def _mixed(numbers: Numbers) -> Numbers:
    """Every bit of the result depends on every bit of a number: the finalizer of SplitMix64 (Steele et al. 2014)."""
    numbers = (numbers ^ numbers >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ numbers >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return numbers ^ numbers >> np.uint64(31)
