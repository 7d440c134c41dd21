"""The folder of a run: what it may be, who holds it, and what goes when it is removed."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sublayer.config.folders import UNFINISHED
from sublayer.errors import CheckpointError, ConfigError
from sublayer.files import remove_parts, require_name, storage_error
from sublayer.hub import folder as model_folder
from sublayer.locks import LockedError, NoLocksError, locked
from sublayer.training import checkpoint, conditions


def check_folder(out: Path, folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Check that `out` is what the caller thinks it is; nothing is changed. folder: where the recipe stands.

    Raises:
        ConfigError, CheckpointError: a run stands there and neither `resume` nor `overwrite` says what to do with it,
            or there is nothing to resume. StorageError: no folder can be called so.
    """
    require_name(out)
    there = (out / "recipe.toml").is_file()
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite contradict each other", "Give one of them.")
    if resume and not there:
        raise CheckpointError(f"there is no run in {out} to resume", "Leave --resume out to start one.")
    if there and not resume and out.resolve() == folder and not (out / "metrics.jsonl").is_file():
        raise ConfigError(f"{out} is the folder of the recipe, not of a run", "Choose another --out.")
    if there and not resume and not overwrite:
        raise ConfigError(
            f"{out} already holds a run",
            "Go on with --resume, start anew with --overwrite, or choose another --out.",
        )
    # Hidden files are what a run that was killed in its first moment leaves: a recipe.toml not yet renamed.
    if not there and out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise ConfigError(f"{out} is not empty and not a run", "Choose another --out.")


@contextmanager
def alone(out: Path) -> Generator[None]:
    """Hold the lock of the run in `out` within the block; a folder made for it is removed if nothing came into it.

    A process that is killed does not keep the lock. Where the file system has no locks, nothing is held.

    Raises:
        ConfigError: another process trains there. StorageError: the folder cannot be made.
    """
    with ExitStack() as held:
        try:
            if not out.is_dir():
                out.mkdir(parents=True)
                held.callback(remove_parts, out, ())
            with suppress(NoLocksError):
                held.enter_context(locked(out / LOCK))
        except LockedError:
            raise ConfigError(
                f"another process is training in {out}", "Wait until it has ended, end it, or choose another --out."
            ) from None
        except OSError as error:
            raise storage_error(out, error) from error
        yield


LOCK = ".lock"
"""The file in a run's folder that the process which trains there holds locked; that it is there alone says nothing."""


def remove_run(out: Path) -> None:
    """Remove what the run in `out` consists of, and the folder where nothing else stands in it."""
    remove_all_but_recipe(out)
    remove_parts(out, ("recipe.toml", "sublayer_tokenizer.json", LOCK))


def remove_all_but_recipe(out: Path) -> None:
    for saved in checkpoint.listed(out / "checkpoints"):
        remove_parts(saved, checkpoint.FILES)
    remove_parts(out / "checkpoints", ())
    for name in ("model", UNFINISHED):
        remove_parts(out / name, model_folder.PARTS)
    remove_parts(out / "tensorboard", ("events.out.tfevents.*",))
    for name in ("tokenizer.json", "metrics.jsonl", "curves.png", "confusion.png", "machine.json", conditions.FILE):
        with suppress(OSError):
            (out / name).unlink()
