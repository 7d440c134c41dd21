"""Standard input, output and error where they are not what a program expects: closed, full, narrow, or gone; and the
signals that end one."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


def open_closed() -> None:
    """Give standard streams that are closed the null device: the next file opened would else get a stream's number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123


def write_any_text() -> None:
    """Write what standard output's encoding does not have, and bytes of names that are not UTF-8, as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if stream.errors != "backslashreplace" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]


def refused(stream: TextIO) -> OSError | None:
    """Write out what waits in the stream; what went wrong, if anything did, and then the rest is thrown away."""
    try:
        stream.flush()
    except ValueError:  # it is closed
        return None
    except OSError as error:
        discard(stream)
        return error
    return None


def discard(stream: TextIO) -> None:
    """Let what waits in the stream, and what is yet written to it, go nowhere: Python must not complain at exit."""
    with suppress(OSError, ValueError):
        number = stream.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)


def forget_terminal() -> None:
    """Once a terminal has hung up, let what is written to it go nowhere instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            if stat.S_ISCHR(os.fstat(stream.fileno()).st_mode):
                discard(stream)


@contextmanager
def signals_taken(
    names: tuple[str, ...], handler: Callable[[int, object], None], wanted: Callable[[Any], bool]
) -> Generator[None]:
    """Inside the block `handler` takes the signals of these names whose handlers until then are `wanted` away."""
    known = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: handled for number in known if wanted(handled := signal.getsignal(number))}
    try:
        for number in before:
            signal.signal(number, handler)
    except ValueError:  # not in the main thread, where signals cannot be taken
        before = {}
    try:
        yield
    finally:
        for number, handled in before.items():
            signal.signal(number, handled)
