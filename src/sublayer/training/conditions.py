"""What decides the result of a run to the bit: written down when it begins, compared when it goes on.

    conditions.json     recipe: as resolved when the run began
                        text: digests of the training (with the tokenizer), validation and test text
                        threads: of torch
                        machine: device, processor, instructions, versions

Of what differs, the recipe and the text are refused, the number of threads is followed, and the rest is said. (What the
machine is fast at is followed too; it stands in machine.json.)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sublayer import config
from sublayer.config.difference import differences, is_path
from sublayer.errors import CheckpointError, ConfigError, DataError
from sublayer.fast.facts import Identity
from sublayer.files import write_json
from sublayer.tasks.held_out import write_rows
from sublayer.training.progress import Reporter
from sublayer.training.task_data import TaskData

FILE = "conditions.json"

TEXT = {"training": "the training text or the tokenizer", "validation": "the validation text", "test": "the test text"}
"""What the digests are of, by their names."""


@dataclass(frozen=True)
class Conditions:
    """recipe: plain data. text: a digest by part. machine: by what it is of."""

    recipe: Mapping[str, Any]
    text: Mapping[str, str]
    threads: int
    machine: Mapping[str, str]

    @staticmethod
    def here(recipe: config.Recipe, data: TaskData, device: torch.device, processes: int = 1) -> Conditions:
        """Those of this moment."""
        held = (("validation", data.splits.validation), ("test", data.splits.test))
        text = {"training": data.digest, **{name: _digest(write_rows(table)) for name, table in held}}
        return Conditions(recipe.plain(), text, torch.get_num_threads(), _machine(device, processes))


def write_conditions(folder: Path, conditions: Conditions) -> None:
    """
    Raises:
        StorageError: the disk refused.
    """
    write_json(folder / FILE, asdict(conditions))


def read_conditions(folder: Path) -> Conditions | None:
    """Those that the run in `folder` began with; None of a run that is older than this file.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        recipe, text, machine = (dict(held[name]) for name in ("recipe", "text", "machine"))
        # As it reads today: a setting that was not there yet has its default.
        recipe = config.Recipe.parse(recipe, str(path)).plain()
        return Conditions(recipe, text, int(held["threads"]), machine)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ConfigError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error})", "Put it back, or remove it to go on without comparing."
        ) from None


@contextmanager
def threads_of_run(folder: Path, *, resume: bool, reporter: Reporter, processes: int = 1) -> Generator[None]:
    """Compute, within the block, with as many threads as the run in `folder` began with, where it is to go on.

    Sums are made in another order by another number, so that the last bits would differ; which they do anyway with
    another number of processes, whose machines may have other cores for each.

    Raises:
        CheckpointError: as in `read_conditions`.
    """
    began = read_conditions(folder) if resume else None
    before = torch.get_num_threads()
    others = began is not None and began.machine.get("processes", "1") != str(processes)
    if began is None or others or not 1 <= began.threads <= 4096 or began.threads == before:
        yield
        return
    reporter.say(f"with threads: {began.threads}, as the run began (here: {before})")
    torch.set_num_threads(began.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def require_same(
    began: Conditions, recipe: config.Recipe, here: Conditions, out: Path, may_change: Sequence[str]
) -> None:
    """Check what a run must go on with. recipe: the one in its folder. may_change: what of the training may be another.

    Paths of text may be others too: what stands there is compared.

    Raises:
        ConfigError: the recipe in the folder was edited. DataError: the text is another.
    """
    found = changes(began.recipe, recipe.plain())
    free = tuple(f"training.{name}." for name in may_change)
    edited = [said for where, said in found.items() if not (f"{where}.".startswith(free) or is_path(where))]
    if edited:
        raise ConfigError(
            f"{out / 'recipe.toml'} was edited since the run began: {', '.join(edited)}",
            "Put it back as it was, or start another run.",
        )
    for name, what in TEXT.items():
        if began.text.get(name) != here.text[name]:
            raise DataError(
                f"{what} is not what {out} began with",
                "Put back the text and tokenizer.json as they were, or start another run.",
            )


def say_what_differs(began: Conditions, here: Conditions, reporter: Reporter) -> None:
    """Say what cannot be followed: from here on the run is not that of an unbroken one to the bit."""
    found = changes(dict(began.machine), dict(here.machine)).values()
    if found:
        reporter.say(f"not where the run began, so not equal to the bit to a run without a break: {', '.join(found)}")


def changes(old: Any, new: Any, where: str = "") -> dict[str, str]:
    """The settings that differ in plain data, by dotted path in order, each as a clause."""
    found = sorted(differences(old, new, where).items())
    return {path: f"{path} was {before}, is {after}" for path, (before, after) in found}


def _machine(device: torch.device, processes: int) -> dict[str, str]:
    identity = Identity.here()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    limits = {"limits": " ".join(identity.limits)} if identity.limits else {}
    versions = {package: version(package) for package in ("sublayer", "torch", "numpy")}
    return {
        "device": name,
        "processor": identity.processor,
        "instructions": identity.instructions,
        **limits,
        **({"processes": str(processes)} if processes > 1 else {}),
        **versions,
    }


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
