"""Where a folder is to be written: a free place or a model's, and never one that holds what is being read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from sublayer.errors import CheckpointError
from sublayer.files import require_name


def require_destination(out: Path, sources: Iterable[Path], *, overwrite: bool) -> None:
    """Check that a folder may be written at `out`; nothing is changed.

    Args:
        sources: files and folders that are read, or that what is written will refer to.
        overwrite: a model folder that stands there may be replaced.

    Raises:
        CheckpointError: something stands there and may not be replaced, or is no model, or is one of the sources, holds
            one, or is the current folder. StorageError: no folder can be called so.
    """
    _require_free(out, overwrite=overwrite)
    require_apart(out, sources)
    if out.exists() and not _is_replaceable(out):
        raise CheckpointError(f"what stands at {out} is not a model folder", "Choose another place, or remove it.")


def require_file_destination(out: Path, sources: Iterable[Path], suffix: str, *, overwrite: bool) -> None:
    """The same for a file, whose name must end with `suffix`.

    Raises:
        CheckpointError: it does not; or something stands there and may not be replaced, or is no file, or is one of the
            sources. StorageError: no file can be called so.
    """
    if out.suffix != suffix:
        raise CheckpointError(f"{out} is to be one file of another kind", f"End its name with {suffix}.")
    _require_free(out, overwrite=overwrite)
    if out.exists() and not out.is_file():
        raise CheckpointError(f"what stands at {out} is not a file", "Choose another place, or remove it.")
    require_apart(out, sources)


def require_apart(out: Path, sources: Iterable[Path]) -> None:
    """
    Raises:
        CheckpointError: `out` is one of the sources, holds one, or holds the current folder.
    """
    place = out.resolve()
    for source in sources:
        if source.exists() and source.resolve().is_relative_to(place):
            raise CheckpointError(f"{out} holds what is to be read, {source}", "Choose another place.")
    if place.exists() and Path.cwd().resolve().is_relative_to(place):
        raise CheckpointError(f"{out} is the current folder, or holds it", "Name a folder inside it.")


def with_bases(folder: Path) -> list[Path]:
    """A model folder and, of adapters, the folders of their bases, as far as their config.json can be read."""
    found: list[Path] = []
    while folder.resolve() not in found:
        found.append(folder.resolve())
        try:
            folder = folder / str(json.loads((folder / "config.json").read_bytes())["base"]["path"])
        except (OSError, ValueError, LookupError, TypeError, RecursionError):  # whoever reads it says what is wrong
            break
    return found


def _require_free(out: Path, *, overwrite: bool) -> None:
    require_name(out)
    if out.exists() and not overwrite:
        raise CheckpointError(f"there is something at {out} already", "Choose another place, or say --overwrite.")


def _is_replaceable(out: Path) -> bool:
    if not out.is_dir():
        return False
    names = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    described = names & {"config.json", "adapter_config.json"}
    return not names or bool(described and any(name.endswith((".safetensors", ".bin")) for name in names))
