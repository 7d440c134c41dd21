"""Tensors in and out of safetensors files, with errors that name the file. Never a pickle."""

from __future__ import annotations

import ctypes
import mmap
import os
import stat
import sys
from collections.abc import Iterable, Mapping
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


def release(path: Path, tensors: Iterable[Tensor]) -> int:
    """Give back the memory of tensors that `read_tensors` has mapped from this file, and return how many bytes that is:
    whoever reads them again reads them from the file.

    They must not have been written to since they were read: that would be lost. Does nothing but on Linux, and nothing
    to tensors that have memory of their own.
    """
    if not sys.platform.startswith("linux"):
        return 0
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    mapped, given = _mapped(path), 0
    for tensor in tensors:
        # Only pages that are all its own.
        begin = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        inside = any(first <= begin and end <= last for first, last in mapped)
        if inside and begin < end and madvise(begin, end - begin, mmap.MADV_DONTNEED) == 0:
            given += end - begin
    return given


def _mapped(path: Path) -> list[tuple[int, int]]:
    """Where in memory this file is mapped."""
    found: list[tuple[int, int]] = []
    with suppress(OSError):
        state = path.stat()
        device = f"{os.major(state.st_dev):02x}:{os.minor(state.st_dev):02x}"
        for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
            span, _, _, own_device, inode, *_ = line.split()
            if (own_device, int(inode)) == (device, state.st_ino):
                first, last = (int(each, 16) for each in span.split("-"))
                found.append((first, last))
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
