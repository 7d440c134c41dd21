"""Prompts that begin alike are read once: states of what was read, and what of them a new prompt can go on from.

Only states that can be forked are kept (`models/backend.py`, `Forks`). What was not used for the longest is forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sublayer.models.backend import Forks

LEAST = 16
"""Tokens that two prompts must have in common, for it to be worth anything."""


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    most = min(len(one), len(other))
    # Slices are compared at once: halves of what is still unsure, rather than token by token.
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


class Prefixes:
    """Args:
    tokens: of all states together, at most.
    """

    def __init__(self, tokens: int) -> None:
        self._most = tokens
        self._held: list[tuple[list[int], Any]] = []  # the last used at the end

    @property
    def tokens(self) -> int:
        return sum(len(ids) for ids, _ in self._held)

    def add(self, ids: Sequence[int], state: Any) -> None:
        """Keep what was read: `ids`, by `state`, which stays the caller's."""
        if not isinstance(state, Forks) or not LEAST <= len(ids) <= self._most:
            return
        for place, (held, _) in enumerate(self._held):
            common = shared(held, ids)
            if common == len(ids):
                return
            if common == len(held):
                del self._held[place]
                break
        while self.tokens + len(ids) > self._most:
            del self._held[0]
        self._held.append((list(ids), state.fork(len(ids), 0)))

    def longest(self, ids: Sequence[int]) -> int:
        """How many of the first tokens of `ids` were read before; 0 where they are too few."""
        found = max((shared(held, ids) for held, _ in self._held), default=0)
        return found if found >= LEAST else 0

    def fork(self, ids: Sequence[int], capacity: int) -> tuple[int, Any] | None:
        """A state that has read as much of `ids` as any here, and how much that is; None where it is too little.

        Args:
            capacity: tokens that all of the text comes to.
        """
        length = self.longest(ids)
        if not length:
            return None
        place = next(at for at, (held, _) in enumerate(self._held) if shared(held, ids) == length)
        self._held.append(self._held.pop(place))
        return length, self._held[-1][1].fork(length, capacity - length)
