"""What an output was begun with, in a file beside its parts: who starts again goes on with the same, or is refused."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from sublayer.cluster.jobs import Job
from sublayer.cluster.layout import Layout
from sublayer.data.portions import size_and_time
from sublayer.errors import ConfigError
from sublayer.files import clear_leftovers, require_name, sha256, storage_error, write_json
from sublayer.hub.location import ADAPTERS, WEIGHTS, find
from sublayer.locks import LockedError, NoLocksError, locked
from sublayer.untrusted import is_file, read_object

FILE = "_manifest.json"
"""Whoever reads the folder as a data set passes over names that begin so."""
DECISIVE = ("config.json", WEIGHTS, ADAPTERS, "tokenizer.json")
"""The files of a model that decide what it says."""


def manifest(job: Job, paths: Sequence[Path], layout: Layout, rows: int) -> dict[str, Any]:
    """Everything that decides the output, as plain data.

    Raises:
        CheckpointError: there is no such model.
    """
    folder = find(job.model)
    files = [*DECISIVE, "shortlist.safetensors"] if job.options.get("shortlist") else DECISIVE
    told: dict[str, Any] = {
        "job": job.name,
        "weights": job.weights,
        "column": layout.column,
        "format": layout.format,
        "rows of a part": rows,
        **job.options,
        **{f"{name} of the model": sha256(folder / name) for name in files if is_file(folder / name)},
        **{str(path): size_and_time(path) for path in paths},
    }
    return json.loads(json.dumps(told))


@contextmanager
def claimed(out: Path, wanted: Mapping[str, Any]) -> Generator[None]:
    """Hold the folder within the block, with the manifest in it.

    Raises:
        ConfigError: something else stands there, it was begun with something else, or another process is at it.
        StorageError: the disk refused.
    """
    require_name(out)
    path = out / FILE
    if not path.is_file() and out.exists() and (not out.is_dir() or any(each.name[0] != "." for each in out.iterdir())):
        raise ConfigError(f"{out} is not empty, and no output that was begun", "Name another folder.")
    with ExitStack() as held:
        try:
            out.mkdir(parents=True, exist_ok=True)
            with suppress(NoLocksError):
                held.enter_context(locked(out / ".lock"))
            clear_leftovers(out)
            for aside in out.glob(".part-*"):
                aside.unlink(missing_ok=True)
        except LockedError:
            raise ConfigError(f"another process writes into {out}", "Wait until it has ended.") from None
        except OSError as error:
            raise storage_error(out, error) from error
        if path.is_file():
            begun = read_object(path, ConfigError, "Name another folder.")
            names = [name for name in {**begun, **wanted} if begun.get(name) != wanted.get(name)]
            if names:
                said = "; ".join(f"{name} was {begun.get(name)}, and is {wanted.get(name)}" for name in names)
                raise ConfigError(f"{out} was begun otherwise: {said}", "Name another folder.")
        else:
            write_json(path, wanted)
        yield
