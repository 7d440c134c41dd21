"""Locks on files between processes: held as long as the process that took one lives, whatever ends it."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    def _take(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _take(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


class LockedError(Exception):
    """Another process, or another part of this one, holds the lock."""


class NoLocksError(Exception):
    """This file system knows no locks."""


@contextmanager
def locked(path: Path, *, create: bool = True) -> Generator[None]:
    """Hold the lock on the file `path` within the block; the file is removed after it.

    A process that is killed leaves the file and loses the lock, so that the file alone says nothing.

    Raises:
        LockedError: it is held. NoLocksError: there are no locks here. OSError: the file cannot be made or opened.
    """
    handle = _locked_handle(path, create=create)
    try:
        yield
    finally:
        if sys.platform == "win32":  # an open file cannot be removed there
            os.close(handle)
            path.unlink(missing_ok=True)
        else:
            path.unlink(missing_ok=True)
            os.close(handle)


def _locked_handle(path: Path, *, create: bool) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o666)
        try:
            _take(handle)
            if _is_there(handle, path):
                return handle
        except OSError as error:
            os.close(handle)
            # Windows says "permission denied" where POSIX says "try again".
            if isinstance(error, BlockingIOError | PermissionError):
                raise LockedError(str(path)) from None
            raise NoLocksError(str(path)) from None
        # Whoever held it has removed the file meanwhile: what is locked now is no longer at `path`.
        os.close(handle)
        if not create:
            raise LockedError(str(path))


def _is_there(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
