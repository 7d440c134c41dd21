"""One wheel from the package index, through pip, with progress."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sublayer import files
from sublayer.errors import DataError

Progress = Callable[[int, int], None]


def download(requirement: str, size: int, folder: Path, otherwise: str, progress: Progress | None) -> Path:
    """The wheel of `requirement` (name==version), in `folder`.

    pip runs as a subprocess and so follows the user's own index, proxy and certificates. Nothing of the folder that the
    command was given in is imported by it: that may hold anybody's files, a typing.py among them. Progress is read off
    the growing file, because pip before 24.1 has no progress that a program can read.

    Args:
        size: expected bytes, the total of the progress.
        otherwise: what to do if it does not work, the end of the error's remedy.

    Raises:
        DataError: pip is missing, or it failed; its last word is quoted.
    """
    # pip writes to its temporary folder first; here, so that it can be watched and goes when the folder goes.
    folder = folder.absolute()
    environment = os.environ | {name: str(folder) for name in ("TMPDIR", "TEMP", "TMP")} | {"PYTHONSAFEPATH": "1"}
    log = folder / "pip.log"
    with log.open("wb") as handle:
        pip = subprocess.Popen(
            _command(requirement, folder),
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=handle,
            env=environment,
            cwd=folder,
        )
        try:
            while pip.poll() is None:
                if progress is not None:
                    progress(min(_largest(folder), size), size)
                time.sleep(0.1)
        finally:
            if pip.poll() is None:
                pip.terminate()
                pip.wait()
    wheels = list(folder.glob("*.whl"))
    if pip.returncode or not wheels:
        raise _failure(requirement, log.read_text(encoding="utf-8", errors="replace"), otherwise)
    if progress is not None:
        progress(size, size)
    return wheels[0]


def verify(path: Path, sha256: str, what: str) -> None:
    """Check that a file is the one that was meant.

    Raises:
        DataError: its SHA-256 is another.
    """
    found = files.sha256(path)
    if found != sha256:
        raise DataError(
            f"{what} came with the SHA-256 {found[:12]}…, expected {sha256[:12]}…",
            "Try again; if it stays so, the package index you use serves another file.",
        )


def _command(requirement: str, folder: Path) -> list[str]:
    # -P keeps the working folder off the path. Not -I, which would hide a pip that is the user's own.
    options = ["--no-deps", "--only-binary", ":all:", "--progress-bar", "off", "--no-input"]
    pip = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "download"]
    return [*pip, *options, "--dest", str(folder), requirement]


def _largest(folder: Path) -> int:
    """Bytes of the largest file: with pip's cache on, the same bytes go to two files.

    pip moves files and removes folders meanwhile: `os.walk` passes over a folder that is gone, where `rglob` raises.
    """
    largest = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                largest = max(largest, Path(parent, name).stat().st_size)
    return largest


def _failure(requirement: str, log: str, otherwise: str) -> DataError:
    if "No module named pip" in log:
        return DataError(f"pip is not there to fetch {requirement}", f"Run `python -m ensurepip`. {otherwise}")
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    said = (errors or lines or ["it said nothing"])[0]
    return DataError(f"pip could not fetch {requirement}: {said[:300]}", f"Check the network. {otherwise}")
