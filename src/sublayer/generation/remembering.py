"""The step contract for a conversation: of each prompt only what is new is read.

What a chat asks next begins with all that was said before. `Remembering` stands before a stepper and keeps the state of
the last text; a prompt that begins as that text did goes on from there.
"""

from __future__ import annotations

from itertools import takewhile
from typing import Generic, cast

from torch import Tensor

from sublayer.generation.step import S, Stepper


class Remembering(Generic[S]):
    """Steps as `model` does, one text after another; for prompts that come one at a time.

    Several prompts together, or several rows of one, are passed on and leave nothing to go on from.

    Memory: keys and values of one text as long as the model's context, of which the system gives what is written to.

    Args:
        model: whose states can be shortened to any length, as those of attention can.
    """

    def __init__(self, model: Stepper[S]) -> None:
        self.model = model
        self._state: S | None = None
        self._fed: list[int] = []

    def start(
        self, source: Tensor, source_lengths: Tensor | None = None, *, rows: int = 1, capacity: int | None = None
    ) -> S:
        """As the model's own `start`; the state of the text before must no longer be used."""
        if source.shape[0] > 1 or rows > 1 or source_lengths is not None:
            self._state = None
            return self.model.start(source, source_lengths, rows=rows, capacity=capacity)
        ids = cast("list[int]", source[0].tolist())
        if self._state is not None:
            del self._fed[self._state.length :]
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._fed, ids, strict=False)))
        if self._state is None or shared == 0:
            # Room for all that may follow, for this is the state of the texts to come, too.
            self._state, self._fed = self.model.start(source), ids
            return self._state
        self._state.truncate(shared)
        if shared < len(ids):
            self.step(source[:, shared:], self._state)
        return self._state

    def step(self, tokens: Tensor, state: S) -> Tensor:
        """As the model's own `step`."""
        if state is self._state:
            # What was taken back since (guesses that were wrong) is no longer part of the text.
            self._fed[state.length :] = cast("list[int]", tokens[0].tolist())
        return self.model.step(tokens, state)
