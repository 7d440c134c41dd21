"""Stop strings, also across token boundaries."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Take a text in pieces, and release what is certainly not part of a stop string.

    The text ends where a stop string is first complete, and is cut before it (of several complete at once, before the
    longest). It does not matter in which pieces the text comes.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        assert all(stops), "an empty string stops everything"
        self._stops = stops
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """What can be shown after `text` has come: all but the beginning of a possible stop string, which is held."""
        if self.stopped:
            return ""
        held = self._held + text
        found = [(held.index(stop) + len(stop), -len(stop)) for stop in self._stops if stop in held]
        if found:
            end, negative = min(found)
            self.stopped = True
            self._held = ""
            return held[: end + negative]
        begun = max((_overlap(held, stop) for stop in self._stops), default=0)
        self._held = held[len(held) - begun :]
        return held[: len(held) - begun]

    def flush(self) -> str:
        """What was held, when no more will come."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop` without being all of it."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-size:])), 0)
