"""The one place that writes lines to the terminal.

What others wrote (names of tensors, keys of a config, texts, paths) stands in the lines of the command line. A control
character among it would be a command to the terminal, so it is shown by its escape. What goes to a file or a pipe is
left as it is: there it is data.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import typer

from sublayer.untrusted import printable

if TYPE_CHECKING:
    from rich.console import Console


def say(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Write a line; without control characters on standard error, and on standard output where it is a terminal."""
    written = str(text)
    if err or _is_terminal():
        written = printable(written)
    typer.echo(written, err=err, nl=nl)


def one_line(text: str) -> str:
    """Return `text` as one printable line."""
    return printable(" ".join(text.split()))


def console(**options: Any) -> Console:
    """Return a console of rich's that writes no control character of what it is given."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class Printable(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(printable(segment.text), segment.style)

    return Printable(**options)


def log_to_terminal() -> None:
    """Write what the logger "sublayer" warns of as printable lines on standard error."""
    logger = logging.getLogger("sublayer")
    if not any(isinstance(handler, _Printing) for handler in logger.handlers):
        logger.addHandler(_Printing(logging.WARNING))


class _Printing(logging.Handler):
    """To standard error as it is at the moment: it may have been exchanged since."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record), err=True)


def _is_terminal() -> bool:
    try:
        return sys.stdout.isatty()
    except (AttributeError, ValueError):  # closed, or none at all
        return False
