"""Tensors in and out of safetensors files, with errors that name the file. Never a pickle."""

from __future__ import annotations

import ctypes
import mmap
import os
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from sublayer.errors import CheckpointError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file, on the CPU.

    Raises:
        CheckpointError: it is missing, truncated or not a safetensors file.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing", "Copy the folder again, whole.") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged or not a safetensors file ({error})", "Copy it again, or take an earlier checkpoint."
        ) from None


class Release:
    """Gives back the memory of tensors that `read_tensors` has mapped from a file: whoever reads them again reads them
    from there. Does nothing but on Linux, nothing to tensors with memory of their own, and nothing where somebody has
    written to one of them, which would be lost.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mapped: list[tuple[int, int]] | None = None

    def __call__(self, tensor: Tensor) -> int:
        """Return how many bytes were given back."""
        if self._mapped is None:
            self._mapped = _unwritten(self._path)
        # Only pages that are all its own.
        begin = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if begin >= end or not any(first <= begin and end <= last for first, last in self._mapped):
            return 0
        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        return end - begin if madvise(begin, end - begin, mmap.MADV_DONTNEED) == 0 else 0


def _unwritten(path: Path) -> list[tuple[int, int]]:
    """Where in memory this file is mapped, and as it is on the disk."""
    found: list[tuple[int, int]] = []
    if not sys.platform.startswith("linux"):
        return found
    with suppress(OSError, ValueError):
        state = path.stat()
        device = f"{os.major(state.st_dev):02x}:{os.minor(state.st_dev):02x}"
        own = False
        for line in Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
            first, *rest = line.split()
            if not first.endswith(":"):
                own = (rest[2], int(rest[3])) == (device, state.st_ino)
                if own:
                    begin, end = (int(each, 16) for each in first.split("-"))
                    found.append((begin, end))
            elif own and first == "Private_Dirty:" and rest[0] != "0":
                found.pop()
                own = False
    return found


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """The tensors, wherever they are, as a safetensors file that whoever may read new files of this user may read.

    Raises:
        OSError: the disk refused; the library itself reports a full disk as an error of its own kind.
    """
    # The library makes its file for the owner alone.
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    try:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(None, str(error)) from error
    path.chmod(mode)
