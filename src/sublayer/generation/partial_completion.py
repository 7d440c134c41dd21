"""A text as it is made: its tokens, its characters as soon as they are sure, and why it ended."""

from __future__ import annotations

from collections.abc import Sequence

from sublayer.generation.loop import Ending
from sublayer.generation.stopping import StopStrings
from sublayer.text import Tokenizer


class PartialCompletion:
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
        self._characters = tokenizer.stream(before)
        self._stop = StopStrings(stop)
        self._at_once = at_once or bool(stop)

    def append(self, token: int) -> bool:
        """Take a token that is not an end token; whether the text has come upon a stop string."""
        self.tokens.append(token)
        if self._at_once:
            self.text += self._stop.push(self._characters.push([token]))
        return self._stop.stopped

    def finish(self, ending: Ending) -> None:
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
