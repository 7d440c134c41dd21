"""A text as it unfolds: tokens come one at a time, characters are shown as soon as they are sure."""

from __future__ import annotations

from collections.abc import Sequence

from sublayer.generation.loop import Ending
from sublayer.generation.stopping import StopStrings
from sublayer.text import Tokenizer

REPLACEMENT = "\ufffd"
"""How a tokenizer writes bytes that are not yet a character, or never will be."""
CONTEXT = 4
"""Tokens before the new ones that are decoded with them: what comes first in a text may lose its leading space."""


class Characters:
    """The characters of tokens as they come; of a character of several tokens, none until it is whole."""

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int]) -> None:
        """
        Args:
            before: the tokens that the text goes on from.
        """
        self._tokenizer = tokenizer
        self._tokens = list(before[-CONTEXT:])
        self._begin, self._given = 0, len(self._tokens)

    def push(self, tokens: Sequence[int]) -> str:
        """What the tokens add to the text; may be empty."""
        self._tokens += tokens
        # Decoded from some tokens before what is new, whose own decoding may depend on its neighbours.
        new = self._new()
        if new and not new.endswith(REPLACEMENT):
            self._begin, self._given = max(self._begin, self._given - CONTEXT), len(self._tokens)
            return new
        return ""

    def finish(self) -> str:
        """What was held back, when no more will come."""
        new, self._given = self._new(), len(self._tokens)
        return new

    def _new(self) -> str:
        old, all_ = self._tokenizer.decode([self._tokens[self._begin : self._given], self._tokens[self._begin :]])
        return all_[len(old) :]


class Unfolding:
    """One text that is being made: its tokens, their log-probabilities, its characters, and why it ended."""

    def __init__(
        self, tokenizer: Tokenizer, before: Sequence[int], stop: Sequence[str], *, at_once: bool = False
    ) -> None:
        """
        Args:
            before: the tokens that the text goes on from. at_once: give characters as they come; else, where no stop
                string needs them, only at the end.
        """
        self.tokens: list[int] = []
        self.log_probabilities: list[float] = []
        self.ended: Ending | None = None
        self.text = ""
        self._characters = Characters(tokenizer, before)
        self._stop = StopStrings(stop)
        self._at_once = at_once or bool(stop)

    def say(self, token: int) -> bool:
        """Take a token that is not an end token; whether the text has come upon a stop string."""
        self.tokens.append(token)
        if self._at_once:
            self.text += self._stop.push(self._characters.push([token]))
        return self._stop.stopped

    def end(self, ending: Ending) -> None:
        """No more will come."""
        self.ended = ending
        if not self._at_once:
            self.text += self._stop.push(self._characters.push(self.tokens))
        self.text += self._stop.push(self._characters.finish())
        # What the last bytes turn out to be may complete a stop string too.
        if self._stop.stopped:
            self.ended = "stop"
        else:
            self.text += self._stop.flush()
