"""Incremental detokenization: tokens come one at a time, characters go out once no later token can change them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sublayer.generation.loop import Ending
from sublayer.generation.stopping import StopStrings
from sublayer.text import Tokenizer

REPLACEMENT = "\ufffd"
"""How a tokenizer writes bytes that are not yet a character, or never will be."""
BYTE = re.compile("<0x[0-9A-F]{2}>")
CONTEXT = 4
"""Tokens before the new ones that are decoded with them: what comes first in a text may lose its leading space."""


class Characters:
    """The characters of tokens as they come, none before it is sure.

    Bytes wait until something else follows: a tokenizer that falls back to bytes decodes a whole run of them in one.
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int]) -> None:
        """
        Args:
            before: the tokens that the text goes on from.
        """
        self._tokenizer = tokenizer
        self._tokens = list(before)
        self._settle()

    def push(self, tokens: Sequence[int]) -> str:
        """What the tokens add to the text; may be empty."""
        self._tokens += tokens
        if not tokens or self._open(tokens[-1]):
            return ""
        new = self._new()
        if not new or new.endswith(REPLACEMENT):
            return ""
        self._settle()
        return new

    def finish(self) -> str:
        """What was held back, when no more will come."""
        new = self._new()
        self._settle()
        return new

    def _new(self) -> str:
        old, whole = self._tokenizer.decode([self._tokens[: self._given], self._tokens])
        return whole[len(old) :]

    def _settle(self) -> None:
        """All tokens so far are given; the last ones, from one that is no byte on, stay as neighbours of the next."""
        begin = max(0, len(self._tokens) - CONTEXT)
        while begin > 0 and self._open(self._tokens[begin]):
            begin -= 1
        self._tokens = self._tokens[begin:]
        self._given = len(self._tokens)

    def _open(self, token: int) -> bool:
        [piece] = self._tokenizer.pieces([token])
        return BYTE.search(piece) is not None


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
