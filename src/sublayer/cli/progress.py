"""How a download says how far it is: a bar in a terminal, lines in a log."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from sublayer.cli import terminal
from sublayer.cli.terminal import say

T = TypeVar("T")
Work = Callable[[Callable[[int, int], None]], T]
"""What is given a function to call with the bytes so far and the bytes in all."""


def reported(title: str, work: Work[T]) -> T:
    """Do the work, showing its progress on standard error."""
    return _with_bar(title, work) if sys.stderr.isatty() else _with_lines(title, work)


def _with_bar(title: str, work: Work[T]) -> T:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=terminal.console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        return work(lambda done, total: bar.update(task, completed=done, total=total))


def _with_lines(title: str, work: Work[T]) -> T:
    """Plain lines, one every tenth of the way, for logs."""
    said = -1

    def report(done: int, total: int) -> None:
        nonlocal said
        tenth = 10 * done // total
        if tenth > said:
            said = tenth
            say(f"{title}: {10 * tenth}% of {total / 1e6:.0f} MB", err=True)

    return work(report)
