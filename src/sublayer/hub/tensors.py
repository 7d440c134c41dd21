"""Tensors in and out of safetensors files, with errors that name the file. Never a pickle."""

from __future__ import annotations

import stat
from collections.abc import Mapping
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
