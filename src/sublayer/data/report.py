"""What was read, what was kept, and what was left out and why: nothing disappears without being counted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

SHOWN = 5


@dataclass(frozen=True)
class Dropped:
    """Rows left out, or noted, for one reason. lines: the first few numbers, counted from 1 (empty where unknown)."""

    reason: str
    count: int
    lines: tuple[int, ...] = ()

    def __str__(self) -> str:
        if not self.lines:
            return f"{self.count:,} {self.reason}"
        more = ", …" if self.count > len(self.lines) else ""
        noun = "line" if self.count == 1 else "lines"
        return f"{self.count:,} {self.reason} ({noun} {', '.join(map(str, self.lines))}{more})"


@dataclass(frozen=True)
class Report:
    """Counts of rows: `read` is always `kept` plus all that was dropped. noun: what the rows are.

    noted: of those that were kept, what is to be said of some (that they were cut, say).
    """

    read: int
    kept: int
    dropped: tuple[Dropped, ...] = ()
    noun: str = "pairs"
    noted: tuple[Dropped, ...] = ()

    @property
    def unit(self) -> str:
        """What the rows are called where they are counted by their text."""
        return "source sentences" if self.noun == "pairs" else self.noun

    def leave_out(self, reason: str, lines: Iterable[int], count: int | None = None) -> Report:
        """This report with more rows left out: those on `lines`, or `count` of them where lines are not known."""
        more = _dropped(reason, lines, count)
        return replace(self, kept=self.kept - more.count, dropped=(*self.dropped, more)) if more.count else self

    def note(self, what: str, lines: Iterable[int], count: int | None = None) -> Report:
        """This report with something said of rows that are kept, counted as `leave_out` counts."""
        more = _dropped(what, lines, count)
        return replace(self, noted=(*self.noted, more)) if more.count else self

    def __str__(self) -> str:
        counted = f"{self.read:,} {self.noun}"
        if self.dropped:
            counted = f"{self.kept:,} of {counted}; left out: {'; '.join(map(str, self.dropped))}"
        return f"{counted}; among them {'; '.join(map(str, self.noted))}" if self.noted else counted


def _dropped(reason: str, lines: Iterable[int], count: int | None) -> Dropped:
    listed = list(lines)
    return Dropped(reason, len(listed) if count is None else count, tuple(listed[:SHOWN]))
