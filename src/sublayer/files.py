"""Files and folders written aside and renamed into place, so that a fault leaves the old or the new, never half."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sublayer.errors import StorageError


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """A path beside `path` to write to; renamed onto `path` when the block ends well, removed when it does not.

    Works for a file and for a folder, whichever the block makes. A folder that is already there is moved away
    first and removed last, so that at every moment one whole version stands under `path` or under `path` + ".old".

    Raises:
        StorageError: the disk refused (full, read-only, no permission); what was under `path` is untouched.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(aside)
        yield aside
        _flush(aside)
        if path.is_dir() and not aside.is_dir():
            raise IsADirectoryError(None, "a folder stands there, and a file is to be written")
        if path.is_dir():
            old = path.with_name(path.name + ".old")
            _remove(old)
            path.rename(old)
            aside.rename(path)
            _remove(old)
        else:
            os.replace(aside, path)
        _flush_folder(path.parent)
    except OSError as error:
        _remove(aside)
        raise StorageError(
            f"could not write {path}: {error.strerror or error}",
            "Free space or choose another place; what was there before is untouched.",
        ) from error
    except BaseException:
        _remove(aside)
        raise


def cache_folder() -> Path:
    """Return the folder of what was fetched or measured.

    It is `$SUBLAYER_CACHE`, else `$XDG_CACHE_HOME/sublayer`, else `~/.cache/sublayer`.
    """
    if own := os.environ.get("SUBLAYER_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "sublayer"
    return Path.home() / ".cache" / "sublayer"


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed while they wrote into `folder` have left; no other may be writing now."""
    for path in folder.glob(".*.new"):
        _remove(path)


def write_text(path: Path, text: str) -> None:
    """`text` as UTF-8 under `path`, whole or not at all."""
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON under `path`, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _flush(path: Path) -> None:
    """Ask the kernel to put the contents on the disk before the rename makes them count."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())


def _flush_folder(path: Path) -> None:
    if os.name == "posix":
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _remove(path: Path) -> None:
    """As far as it can be: this tidies up, and must not hide the error that made it necessary."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
