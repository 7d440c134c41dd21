"""The command as a process: signals that end it let it tidy up, and standard streams may be closed, full or gone."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

from sublayer import streams
from sublayer.errors import StorageError

FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO, errno.EBADF)
"""What a write to standard output ends with, besides a broken pipe; of a file it says the name."""


def run(command: Callable[[], None]) -> None:
    """Run `command`, which ends with `SystemExit` or an error.

    Raises:
        SystemExit: as the command; 143 and 129 where SIGTERM and SIGHUP ended it, after what it began is tidied up.
        BrokenPipeError: nobody reads standard output any more. StorageError: standard output cannot be written.
    """
    streams.open_closed()
    streams.write_any_text()
    with ended_by_signals():
        try:
            command()
        except SystemExit as ended:
            # Typer ends with 1 where a pipe is broken.
            if isinstance(ended.__context__, BrokenPipeError):
                streams.discard(sys.__stdout__ or sys.stdout)
                raise BrokenPipeError from None
            _write_out()
            raise
        except OSError as error:
            if error.filename is None and error.errno in FULL:
                streams.discard(sys.stdout)
                raise _not_written(error) from error
            raise
        _write_out()


def _write_out() -> None:
    error = streams.refused(sys.stdout)
    if isinstance(error, BrokenPipeError):
        raise error
    if error is not None:
        raise _not_written(error) from error


def _not_written(error: OSError) -> StorageError:
    return StorageError(
        f"could not write standard output: {error.strerror or error}", "Free space, or send it elsewhere."
    )


@contextmanager
def told_to_torchrun() -> Generator[None]:
    """Inside the block an error is written to where `torchrun`, if it has started this process, looks for it."""
    try:
        yield
    except Exception as error:
        if "TORCHELASTIC_ERROR_FILE" in os.environ:
            from torch.distributed.elastic.multiprocessing.errors import get_error_handler

            get_error_handler().record_exception(error)
        raise


@contextmanager
def ended_by_signals() -> Generator[None]:
    """Inside the block SIGTERM and SIGHUP end the process as an exception does; a second one ends it at once.

    What whoever started the process lets it ignore (`nohup`) stays ignored.
    """

    def end(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        if number != signal.SIGTERM:
            streams.forget_terminal()
        raise SystemExit(128 + number)

    with streams.signals_taken(("SIGTERM", "SIGHUP"), end, lambda handled: handled is signal.SIG_DFL):
        yield
