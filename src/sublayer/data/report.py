"""What was read, what was kept, and what was left out and why: nothing disappears without being counted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

SHOWN = 5


@dataclass(frozen=True)
class Dropped:
    """Rows left out for one reason. lines: the first few line numbers, counted from 1 (empty where unknown)."""

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
    """Counts of rows: `read` is always `kept` plus all that was dropped. noun: what the rows are."""

    read: int
    kept: int
    dropped: tuple[Dropped, ...] = ()
    noun: str = "pairs"

    def leave_out(self, reason: str, lines: Iterable[int], count: int | None = None) -> Report:
        """This report with more rows left out: those on `lines`, or `count` of them where lines are not known."""
        listed = list(lines)
        total = len(listed) if count is None else count
        if not total:
            return self
        more = Dropped(reason, total, tuple(listed[:SHOWN]))
        return Report(self.read, self.kept - total, (*self.dropped, more), self.noun)

    def __str__(self) -> str:
        if not self.dropped:
            return f"{self.read:,} {self.noun}"
        return f"{self.kept:,} of {self.read:,} {self.noun}; left out: " + "; ".join(map(str, self.dropped))
