"""Checkpoints of a run: everything that is needed to go on bit for bit.

    checkpoints/step-000500/
        state.json               step, place in the data, seconds trained, best so far, and a sha256 of all
        model.safetensors        the weights
        optimizer.safetensors    what the optimizers remember
        average.safetensors      what the averaging remembers
        random.safetensors       the state of the random generators

Written aside and renamed into place, so that a fault at any moment leaves the earlier ones whole.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from pydantic import TypeAdapter
from torch import Tensor

from sublayer.errors import CheckpointError
from sublayer.files import remove_parts, replacing, sha256
from sublayer.hub.tensors import read_tensors, write_tensors
from sublayer.training.clock import Time
from sublayer.untrusted import read_object

PARTS = ("model", "optimizer", "average", "random")
FILES = ("state.json", *(f"{part}.safetensors" for part in PARTS), "shard-*.safetensors")
"""What a checkpoint's folder consists of; what else stands in it is the user's."""


REMEDY = "Remove this folder and resume from the checkpoint before it."


@dataclass(frozen=True)
class Progress:
    """How far a run is, apart from its tensors.

    step: optimizer steps done. epoch, batch: the next batch in the data. seconds, pace, warm: see `clock.Time`.
    place: part of the run that is over, up to 1. validating, saving: seconds spent so. best: the best validation value
    so far, and bad: how many validations ago. metrics_bytes: length of metrics.jsonl at this moment. text: digest of
    the training text as ids.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    pace: float = 0.0
    warm: float | None = None
    place: float = 0.0
    validating: float = 0.0
    saving: float = 0.0
    best: float | None = None
    best_step: int = 0
    bad: int = 0
    metrics_bytes: int = 0
    text: str = ""

    @property
    def time(self) -> Time:
        """What the place in the schedule is computed from."""
        return Time(self.seconds, self.pace, self.warm)

    def at(self, time: Time) -> Progress:
        """The same at another time."""
        return replace(self, seconds=time.seconds, pace=time.pace, warm=time.warm)


Tensors: TypeAlias = Mapping[str, Mapping[str, Tensor]]
"""By part (see `PARTS`), then by name."""


@dataclass(frozen=True)
class Checkpoint:
    """One moment of a run."""

    progress: Progress
    tensors: Tensors


def write(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write the checkpoint under `folder`, then remove the oldest beyond `keep`.

    Raises:
        StorageError: the disk refused; the earlier checkpoints are untouched.
    """
    path = folder / f"step-{checkpoint.progress.step:06d}"
    with replacing(path, FILES) as aside:
        aside.mkdir()
        sums: dict[str, str] = {}
        for part in PARTS:
            file = aside / f"{part}.safetensors"
            write_tensors(file, checkpoint.tensors[part])
            sums[part] = sha256(file)
        write_state(aside, checkpoint.progress, {"sha256": sums})
    prune(folder, keep)
    return path


def write_state(folder: Path, progress: Progress, files: Mapping[str, Any]) -> None:
    """Write state.json. files: what is known of the files beside it."""
    held = asdict(progress)
    sums = {**files.get("sha256", {}), "progress": _sum_of(held)}
    state = {"format": 2 if "bytes" in files else 1, "progress": held, **files, "sha256": sums}
    (folder / "state.json").write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")


def prune(folder: Path, keep: int) -> None:
    """Remove the oldest checkpoints under `folder` beyond `keep`."""
    for old in listed(folder)[:-keep]:
        remove_parts(old, FILES)


def listed(folder: Path) -> list[Path]:
    """The checkpoints under `folder`, oldest first."""
    if not folder.is_dir():
        return []
    found = [
        path
        for path in folder.iterdir()
        if re.fullmatch(r"step-\d{6,}", path.name) and any((path / file).is_file() for file in FILES)
    ]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def read(path: Path) -> Checkpoint:
    """A checkpoint, every file checked against its sum.

    Raises:
        CheckpointError: a file is missing, damaged, or not what was written.
    """
    progress, state = read_state(path)
    sums = state["sha256"]
    tensors: dict[str, Mapping[str, Tensor]] = {}
    for part in PARTS:
        file = path / f"{part}.safetensors"
        if not file.is_file():
            raise CheckpointError(f"{file} is missing", REMEDY)
        if sha256(file) != sums.get(part):
            raise CheckpointError(f"{file} is damaged: it is not what was written", REMEDY)
        tensors[part] = read_tensors(file)
    return Checkpoint(progress, tensors)


def is_sharded(path: Path) -> bool:
    """Whether several processes wrote the checkpoint."""
    return any(path.glob("shard-*.safetensors"))


def read_state(path: Path) -> tuple[Progress, Mapping[str, Any]]:
    """The progress in a checkpoint's state.json, and all that stands there.

    Raises:
        CheckpointError: it is missing, damaged, or not what was written.
    """
    try:
        state = read_object(path / "state.json", remedy=REMEDY)
        written, sums = dict(state["progress"]), dict(state["sha256"])
        # Runs once fixed the number of their steps at the end of the warm-up.
        said = {key: value for key, value in written.items() if key != "last_step"}
        progress = TypeAdapter(Progress).validate_json(json.dumps(said), strict=True)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path / 'state.json'} cannot be read ({error})", REMEDY) from None
    if _sum_of(written) != sums.get("progress"):
        raise CheckpointError(f"{path / 'state.json'} is damaged: it is not what was written", REMEDY)
    return progress, state


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of the generators that dropout draws from."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def of_reader(state: Mapping[str, Tensor], reader: int) -> dict[str, Tensor]:
    """Of the states that several processes wrote, as "reader/name", those of one; of a single process its own."""
    own = f"{reader}/"
    return {name.removeprefix(own): held for name, held in state.items() if name.startswith(own) or "/" not in name}


def restore_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Put back what `random_state` gave."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    if device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])


def _sum_of(progress: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(progress, sort_keys=True).encode()).hexdigest()
