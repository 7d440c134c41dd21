"""A prefix cache for chats: only the new part of each prompt is encoded.

The prompt of a chat's next turn begins with all earlier turns. `PrefixCache` wraps a decoder backend and keeps the
state of the last text. A prompt that shares a prefix with that text continues from there.
"""

from __future__ import annotations

import math
from itertools import takewhile
from typing import Generic, cast

from torch import Tensor

from sublayer.models.backend import DecoderBackend, S

ROOM = 4
"""How much more room a text is given than it needs, for those that go on from it."""


class PrefixCache(Generic[S]):
    """Steps as `model` does, one text after another; for prompts that come one at a time.

    Several prompts together, or several rows of one, are passed on and leave nothing to go on from. There is room for
    `ROOM` times what was asked for; a text that outgrows it is read again from the beginning, into as much more.

    Args:
        model: whose states can be shortened to any length, as those of attention can.
    """

    def __init__(self, model: DecoderBackend[S]) -> None:
        self.model = model
        self._state: S | None = None
        self._fed: list[int] = []
        self._room = 0.0

    def start(
        self, source: Tensor, source_lengths: Tensor | None = None, *, num_beams: int = 1, capacity: int | None = None
    ) -> S:
        """As the model's own `start`; the state of the text before must no longer be used."""
        if source.shape[0] > 1 or num_beams > 1 or source_lengths is not None:
            self._state = None
            return self.model.start(source, source_lengths, num_beams=num_beams, capacity=capacity)
        ids = cast("list[int]", source[0].tolist())
        needed = math.inf if capacity is None else len(ids) + capacity
        shared = 0
        if self._state is not None and needed <= self._room:
            # What was taken back since (guesses that were wrong) is no longer part of the text.
            del self._fed[self._state.length :]
            pairs = zip(self._fed, ids, strict=False)
            shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        if self._state is None or shared == 0:
            # Whoever is interrupted while reading leaves nothing to go on from.
            self._state = None
            ahead = None if capacity is None else ROOM * (len(ids) + capacity) - len(ids)
            state = self.model.start(source, capacity=ahead)
            self._state, self._fed, self._room = state, ids, ROOM * needed
            return state
        self._state.truncate(shared)
        if shared < len(ids):
            self.step(source[:, shared:], self._state)
        return self._state

    def step(self, tokens: Tensor, state: S) -> Tensor:
        """As the model's own `step`."""
        if state is self._state:
            self._fed[state.length :] = cast("list[int]", tokens[0].tolist())
        return self.model.step(tokens, state)
