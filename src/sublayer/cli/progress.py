"""How what takes long says how far it is: a bar in a terminal, lines in a log."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from sublayer.cli import terminal
from sublayer.cli.terminal import say

T = TypeVar("T")
Work = Callable[[Callable[[int, int], None]], T]
"""What is given a function to call with how much is done, and how much there is in all."""


def reported(title: str, work: Work[T], unit: str = "") -> T:
    """Do the work, showing its progress on standard error. unit: of what it counts; bytes where left out."""
    return _with_bar(title, work, unit) if sys.stderr.isatty() else _with_lines(title, work, unit)


def _with_bar(title: str, work: Work[T], unit: str) -> T:
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    counted = MofNCompleteColumn() if unit else DownloadColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), counted, TextColumn(unit), TimeRemainingColumn())
    with Progress(*columns, console=terminal.console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        return work(lambda done, total: bar.update(task, completed=done, total=total))


def _with_lines(title: str, work: Work[T], unit: str) -> T:
    """Plain lines, one every tenth of the way, for logs."""
    said = -1

    def report(done: int, total: int) -> None:
        nonlocal said
        tenth = 10 * done // total
        if tenth > said:
            said = tenth
            amount = f"{total:,} {unit}" if unit else f"{total / 1e6:.0f} MB"
            say(f"{title}: {10 * tenth}% of {amount}", err=True)

    return work(report)
