"""What a recurrent model remembers between two steps: one vector a layer, however long the text.

It answers what a Transformer's state answers. Going back is the odd one: a recurrent state cannot be shortened, so a
few earlier ones are kept as marks, and `truncate` goes to the last mark before the place; the tokens in between are
read again with the next step.

Shapes: B sentences, R = B * num_beams hypotheses, L layers, D width, T tokens fed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sublayer.errors import InputError
from sublayer.models.backend import replace_by_joining
from sublayer.models.source import Source
from sublayer.nn.recurrence import States

MARKS = 8
"""Steps that are remembered besides the beginning: speculation takes back no more than it has guessed."""


@dataclass
class _Mark:
    """The states after `length` tokens. rows: which of its rows each row of today has come from; None: the same."""

    length: int
    states: States
    rows: Tensor | None = None

    @property
    def today(self) -> States:
        return self.states if self.rows is None else _rows(self.states, self.rows)


class RecurrentState:
    """The states of every row, the tokens that led to them, and what attention looks at.

    Args:
        states: before the first step, [L, R, D] each. read: tokens that they have read already (a prompt's), padding
            included. capacity: tokens at most, those included. num_beams: hypotheses a sentence.
    """

    def __init__(
        self, states: States, *, read: int, capacity: int, num_beams: int, source: Source | None = None
    ) -> None:
        self.states = states
        self.num_beams, self.source, self.capacity = num_beams, source or Source(), capacity
        self._read: int = read
        self._held: int = read
        self._length: int = read
        self._fed = torch.empty(states[0].shape[1], 0, dtype=torch.int64, device=states[0].device)
        self._marks = [_Mark(read, states)]

    @property
    def length(self) -> int:
        """How many tokens have been fed, a prompt's included."""
        return self._length

    @property
    def bytes(self) -> int:
        """Memory held by the states of today and by what attention looks at; the marks are at most `MARKS` + 1 more."""
        return self.source.bytes + sum(part.nbytes for part in self.states)

    def reorder(self, rows: Tensor) -> None:
        """Row i goes on from what row `rows[i]` was; both must belong to the same sentence.

        Shape: rows [R], integer.
        """
        self.states, self._fed = _rows(self.states, rows), self._fed[rows]
        for mark in self._marks:
            mark.rows = rows if mark.rows is None else mark.rows[rows]

    def keep(self, sentences: Tensor) -> None:
        """Go on with these sentences only: the others are done.

        Shape: sentences [B'], integer.
        """
        offsets = torch.arange(self.num_beams, device=sentences.device)
        self.reorder((sentences.unsqueeze(1) * self.num_beams + offsets).flatten())
        self.source = self.source.at(sentences)

    def join(self, other: RecurrentState) -> None:
        """Go on with the sentences of `other` too, after one's own. `other` must not be used any more.

        What was fed so far can no longer be taken back.

        Raises:
            ValueError: the two have another number of rows a sentence, or one was shortened and not fed since.
        """
        if self.num_beams != other.num_beams:
            raise ValueError(
                f"a state of {self.num_beams} rows a sentence cannot be joined by one of {other.num_beams}"
            )
        if self._held != self._length or other._held != other._length:
            raise ValueError("a recurrent state that was shortened must be fed before it is joined")
        room = max(self.capacity - self._length, other.capacity - other._length)
        states = tuple(torch.cat(parts, dim=1) for parts in zip(self.states, other.states, strict=True))
        source, length = self.source.joined(other.source), max(self._length, other._length)
        self.__init__(states, read=length, capacity=length + room, num_beams=self.num_beams, source=source)

    def replace(self, sentences: Tensor, other: RecurrentState) -> None:
        """Go on with the sentences of `other` in the places of these, which are over. Raises as `join`."""
        replace_by_joining(self, self.states[0].shape[1] // self.num_beams, sentences, other)

    def truncate(self, length: int) -> None:
        """Forget the tokens from `length` on."""
        if not self._read <= length <= self._length:
            raise ValueError(
                f"cannot truncate a state of {self._length} tokens, {self._read} of them read, to {length}"
            )
        self._length = length
        self._fed = self._fed[:, : length - self._read]
        self._marks = [mark for mark in self._marks if mark.length <= length]
        if self._held > length:
            mark = self._marks[-1]
            self._held, self.states = mark.length, mark.today

    def expand(self, num_beams: int) -> None:
        """Go on with so many rows a sentence, which begin alike; there must be one.

        Raises:
            ValueError: there are more.
        """
        if self.num_beams != 1:
            raise ValueError(f"a state of {self.num_beams} rows a sentence cannot be expanded")
        rows = torch.arange(self.states[0].shape[1], device=self.states[0].device)
        self.reorder(rows.repeat_interleave(num_beams))
        self.num_beams = num_beams

    def feed(self, tokens: Tensor) -> Tensor:
        """Take tokens in: what is to be read from `states` on, which may begin with tokens that are read again.

        Shape: tokens [R, n] -> [R, m], m at least n.

        Raises:
            InputError: there is no room for so many.
        """
        count = tokens.shape[1]
        if self._length + count > self.capacity:
            raise InputError(
                f"the state is for {self.capacity} tokens; {self._length} are taken and {count} more were asked for",
                "Start with a larger capacity.",
            )
        if self._held == self._length and self._marks[-1].length < self._length:
            self._marks = [self._marks[0], *self._marks[1:][1 - MARKS :], _Mark(self._length, self.states)]
        self._fed = torch.cat((self._fed, tokens), dim=1)
        self._length += count
        return self._fed[:, self._held - self._read :]

    def arrive(self, states: States) -> None:
        """The states after all that was fed."""
        self.states, self._held = states, self._length


def _rows(states: States, rows: Tensor) -> States:
    return tuple(part.index_select(1, rows) for part in states)
