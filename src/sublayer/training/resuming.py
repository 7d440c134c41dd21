"""How a run begins, and how it goes on: with the recipe, the text and the weights that it had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from sublayer import config
from sublayer.config.load import dump_toml, load_recipe
from sublayer.errors import ConfigError, DataError
from sublayer.files import write_json, write_text
from sublayer.hub.location import STEP
from sublayer.training import checkpoint, clock
from sublayer.training.checkpoint import Checkpoint
from sublayer.training.conditions import Conditions, changes, read_conditions, require_same, say_what_differs
from sublayer.training.progress import Reporter
from sublayer.training.run_folder import remove_all_but_recipe
from sublayer.training.runtime import resolve_precision
from sublayer.training.task_data import TaskData


def begun(recipe: config.Recipe, out: Path, device: torch.device) -> config.Recipe:
    """Make `out` the folder of a new run: the resolved recipe is written, and an earlier run removed.

    What "auto" found is written down, so that a run that goes on elsewhere, or on a busier day, goes on the same way.
    """
    # What cannot be removed here cannot be written below, which says so.
    remove_all_but_recipe(out)
    precision = resolve_precision(recipe.training.precision, device)
    recipe = _with_precision(recipe, str(precision).removeprefix("torch."))
    write_text(out / "recipe.toml", dump_toml(recipe))
    return recipe


MAY_CHANGE = ("steps", "minutes", "validate_every", "checkpoint_every", "keep_checkpoints", "tensorboard", "parallel")
"""Settings of the training that may be others when it goes on: how long it is, and what does not change its steps."""


def resumed(
    recipe: config.Recipe,
    out: Path,
    data: TaskData,
    device: torch.device,
    reporter: Reporter,
    processes: int = 1,
) -> config.Recipe:
    """The resolved recipe that the run in `out` began with, with what may change as it is in `recipe`.

    Raises:
        ConfigError: it is not `recipe`, or was edited; the settings that differ are named. DataError: the text is
            another. CheckpointError: as in `read_conditions`.
    """
    path = out / "recipe.toml"
    before = load_recipe(str(path)).recipe
    if recipe.training.precision == "auto":
        recipe = _with_precision(recipe, before.training.precision)
    old = before.training
    changed = {name: getattr(recipe.training, name) for name in MAY_CHANGE}
    new = old.model_copy(update=changed)
    different = changes(before.model_copy(update={"training": new}).plain(), recipe.plain())
    if different:
        raise ConfigError(
            f"the recipe is not the one that {out} began with: {', '.join(different.values())}",
            f"Resume with the same recipe and overrides (where text was moved, correct its path in {path}), "
            "or start another run.",
        )
    began = read_conditions(out)
    if began is not None:
        here = Conditions.here(before, data, device, processes)
        require_same(began, before, here, out, MAY_CHANGE)
        say_what_differs(began, here, reporter)
    if new != old:
        reporter.say(f"changed: {', '.join(changes(old.plain(), new.plain(), 'training').values())}")
        before = before.model_copy(update={"training": new})
        write_text(path, dump_toml(before))
    return before


def last_checkpoint(out: Path, data: TaskData, read: Callable[[Path], Checkpoint]) -> Checkpoint | None:
    """The last checkpoint of the run in `out`, if there is one, as `read` reads it.

    Raises:
        CheckpointError: it is damaged. DataError: the text or the tokenizer is not what the run began with.
    """
    last = checkpoint.listed(out / "checkpoints")
    saved = read(last[-1]) if last else None
    if saved is not None and saved.progress.text != data.digest:
        raise DataError(
            f"the training text or the tokenizer is not what {out} began with",
            "Put back the text and tokenizer.json as they were, or start another run.",
        )
    return saved


def mark_stale(folder: Path, c: config.Training, p: checkpoint.Progress) -> None:
    """Write the step of the model that a run had come to, where the run now goes on from there: until it ends again,
    whoever reads the model is told. With early stopping it is the best so far, wherever the run is."""
    if folder.is_dir() and not clock.over(c, p.step, p.time) and not (folder / STEP).exists():
        write_json(folder / STEP, {"step": p.step})


def going_on(c: config.Training, p: checkpoint.Progress) -> str:
    """Where a run goes on, and with which learning rate."""
    whole = f"{c.steps:,}" if c.minutes is None else f"{p.seconds / 60:.1f} of {c.minutes:g} minutes"
    where = f"going on from step {p.step:,}" + (f" of {whole}" if c.minutes is None else f", {whole}")
    if clock.over(c, p.step, p.time):
        return f"{where}: that was all; give it more with --set training.{'steps' if c.steps else 'minutes'}=…"
    factor = clock.place(c, p.step, p.time).factor
    return f"{where}; the learning rate is at {factor:.0%} of its peak"


def _with_precision(recipe: config.Recipe, precision: str) -> config.Recipe:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"precision": precision})})
