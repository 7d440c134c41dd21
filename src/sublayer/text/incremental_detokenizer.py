"""Ids to text while they come, a piece at a time, and never half a character."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_REPLACEMENT = "\ufffd"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


CONTEXT = 4
"""Ids before the first that are decoded with it: what comes first in a text may lose its leading space."""


class IncrementalDetokenizer:
    """Turns ids into text as they come. The parts, put together, are what decoding all ids at once gives.

    What a later id could still change is held back: bytes that are no whole character yet, and, where the vocabulary
    falls back to bytes, a whole run of them (the library decodes such a run in one: one wrong byte makes all of it
    U+FFFD). Everything else is given at once, and is final. Costs are those of decoding a few ids, however many came
    before.
    """

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        token: Callable[[int], str | None],
        *,
        falls_back_to_bytes: bool,
        skipped: frozenset[int],
        before: Sequence[int] = (),
    ) -> None:
        """Made by `Tokenizer.stream`.

        Args:
            decode: ids to text, all at once.
            token: an id as the vocabulary spells it.
            falls_back_to_bytes: whether tokens such as "<0xC3>" stand for bytes.
            skipped: ids that `decode` leaves out.
            before: ids that the text goes on from; they are not given.
        """
        self._decode = decode
        self._token = token
        self._falls_back = falls_back_to_bytes
        self._skipped = skipped
        # Settled ids that give the next ones their surroundings (the first token of a text may lose its space), then
        # those that came since; the text of the settled ones, and how much of all of it has been given.
        self._window = [identifier for identifier in before if identifier not in skipped]
        begin = max(0, len(self._window) - CONTEXT)
        while begin > 0 and self._open(self._window[begin]):
            begin -= 1
        self._window = self._window[begin:]
        self._settled = len(self._window)
        self._given = len(self._decode(self._window)) if self._window else 0

    def push(self, ids: Sequence[int]) -> str:
        """The text that has become final with these ids; may be empty."""
        given: list[str] = []
        for identifier in ids:
            if identifier in self._skipped:
                continue
            self._window.append(identifier)
            if self._open(identifier):
                continue
            text = self._decode(self._window)
            final = text.rstrip(_REPLACEMENT)
            given.append(final[self._given :])
            self._given = max(self._given, len(final))
            if final == text:
                self._settle()
        return "".join(given)

    def finish(self) -> str:
        """The rest, when no id follows: what was held back, as decoding gives it at the end. Then all begins anew."""
        rest = self._decode(self._window)[self._given :] if self._window else ""
        self._window, self._settled, self._given = [], 0, 0
        return rest

    def _open(self, identifier: int) -> bool:
        return self._falls_back and _BYTE.fullmatch(self._token(identifier) or "") is not None

    def _settle(self) -> None:
        """Everything so far is final: the newest ids are the next ones' surroundings, older ones are forgotten."""
        kept = self._window[self._settled :]
        # What comes first must have text of its own: only then is what follows not the first of the text.
        text = self._decode(kept)
        if text:
            self._window, self._given = kept, len(text)
        self._settled = len(self._window)
