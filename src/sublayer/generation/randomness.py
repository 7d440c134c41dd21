"""Random numbers that are a function of where they are used, and of nothing else.

A stream is a number made of a seed and of what it is for (which prompt, which of its samples); its n-th uniform number
needs none of those before it. So a text does not depend on what is sampled beside it, nor on the device.

The function is the finalizer of SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
generators"), applied to each number in turn.
"""

from __future__ import annotations

from itertools import count

_BITS = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15


def stream(*numbers: int) -> int:
    """A 64-bit number made of `numbers`, whose order counts.

    >>> stream(1, 2) == stream(1, 2), stream(1, 2) == stream(2, 1)
    (True, False)
    """
    state = 0
    for number in numbers:
        state = _mixed(state + _GOLDEN ^ _mixed((number + _GOLDEN) & _BITS))
    return state


def uniform(stream: int, place: int) -> float:
    """Number `place` of a stream: uniform in [0, 1), a multiple of 2 ** -52."""
    return (_mixed(stream + _mixed((place + 1) * _GOLDEN & _BITS) & _BITS) >> 12) * 2.0**-52


class Uniforms:
    """The numbers of a stream one after another, for who cannot say beforehand how many it needs."""

    def __init__(self, stream: int) -> None:
        self._stream = stream
        self._places = count()

    def next(self) -> float:
        return uniform(self._stream, next(self._places))


def _mixed(x: int) -> int:
    x &= _BITS
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _BITS
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _BITS
    return x ^ (x >> 31)
