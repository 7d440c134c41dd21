"""A run: from a recipe to a trained model, in one folder.

recipe.toml       the recipe as resolved, paths made absolute
machine.json      what this machine is fast at, so that a resumed run multiplies as it began to (`fast/machine.py`)
conditions.json   what else decides the result, compared when the run goes on (`training/conditions.py`)
tokenizer.json    metrics.jsonl    curves.png, and what else the task draws
checkpoints/      to go on from (`training/checkpoint.py`)
model/            the result (`hub/folder.py`), with the held-out rows beside it in test.jsonl
unfinished/       the same as of the last checkpoint, until there is a result
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sublayer import config
from sublayer.config.load import UNFINISHED, LoadedRecipe, dump_toml, load_recipe
from sublayer.data.batch import AnyBatch
from sublayer.data.loader import Loader
from sublayer.drawing import attempt
from sublayer.errors import CheckpointError, ConfigError, DataError
from sublayer.fast.machine import machine, machine_of_run, write_machine
from sublayer.files import clear_leftovers, remove_parts, require_name, storage_error, write_json, write_text
from sublayer.hub import folder as model_folder
from sublayer.hub.adapted import Adapted
from sublayer.locks import LockedError, NoLocksError, locked
from sublayer.models import Model, build_model
from sublayer.nn.adapter import adapt, kinds, left_out
from sublayer.tasks.held_out import write_rows
from sublayer.tasks.objective import Objective
from sublayer.tasks.scores import UNLEARNED
from sublayer.text import Tokenizer
from sublayer.training import checkpoint, clock, conditions
from sublayer.training.card import model_card
from sublayer.training.checkpoint import Checkpoint
from sublayer.training.conditions import (
    Conditions,
    changes,
    read_conditions,
    require_same,
    say_what_differs,
    threads_of_run,
    write_conditions,
)
from sublayer.training.curves import draw_curves
from sublayer.training.learned import learned
from sublayer.training.metrics import MetricsLog, require_tensorboard, seconds_after
from sublayer.training.progress import Reporter
from sublayer.training.runtime import keep_freed_memory, resolve_precision
from sublayer.training.trainer import SHARE, Surroundings, Trainer
from sublayer.training.work import Start, Work, begin_from, objective, prepare

__all__ = ["Tokenizer", "check_folder", "train"]


def train(
    loaded: LoadedRecipe, out: Path, *, resume: bool, overwrite: bool, device: torch.device, reporter: Reporter
) -> bool:
    """Train what the recipe says into the folder `out`; False where the user interrupted.

    Raises:
        SublayerError: anything that the user can mend, before or during the training.
    """
    keep_freed_memory()
    check_folder(out, loaded.folder, resume=resume, overwrite=overwrite)
    with alone(out):
        # Again: another process may have begun a run there, or ended one, until the lock was ours.
        check_folder(out, loaded.folder, resume=resume, overwrite=overwrite)
        with machine_of_run(out, resume=resume), threads_of_run(out, resume=resume, reporter=reporter):
            return _train(loaded, out, resume=resume, device=device, reporter=reporter)


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
                held.callback(_remove_empty, out)
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


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _train(loaded: LoadedRecipe, out: Path, *, resume: bool, device: torch.device, reporter: Reporter) -> bool:
    work = prepare(loaded.recipe, loaded.folder, out / "tokenizer.json" if resume else None, reporter)
    recipe = _with_paths(work.recipe, loaded.folder)
    torch.manual_seed(recipe.seed)
    model = build_model(recipe.model).to(device)
    start = None if recipe.start is None else begin_from(model, recipe.start)
    if start is not None:
        _require_apart(start, out)
        recipe = recipe.model_copy(update={"start": start.begun})
        new = f"; new: {', '.join(start.fresh)}" if start.fresh else ""
        reporter.say(f"weights of {start.begun.path}{new}")
        if start.unlike:
            reporter.say(f"the recipe's model is not quite that one: {'; '.join(start.unlike)}")
        if recipe.adapter is not None:
            names = adapt(model, recipe.adapter, start.fresh)
            plain = kinds(left_out(model))
            reporter.say(f"adapters beside {kinds(names)}{f'; without any: {plain}' if plain else ''}")
    loader = Loader(work.training, recipe.training.batches, recipe.seed)
    if recipe.training.tensorboard:
        require_tensorboard()
    # Nothing in the folder is touched before this line: what cannot be trained must not cost an earlier run.
    recipe = _resumed(recipe, out, work, device, reporter) if resume else _begun(recipe, out, device)
    for written in (out, out / "checkpoints", out / "model"):
        clear_leftovers(written)
    checkpoint.prune(out / "checkpoints", recipe.training.keep_checkpoints)
    # After recipe.toml, which makes a folder a run; also for a run that was killed before this line.
    if device.type == "cpu" and not (out / "machine.json").is_file():
        write_machine(machine(), out / "machine.json")
    if not (out / conditions.FILE).is_file() and not checkpoint.listed(out / "checkpoints"):
        write_conditions(out, Conditions.here(recipe, work, device))
    work.tokenizer.save(out / "tokenizer.json")
    saved = _last_checkpoint(out, work) if resume else None
    if saved is not None and recipe.training.early_stopping is None:
        _mark_stale(out / "model", recipe.training, saved.progress)
    precision = resolve_precision(recipe.training.precision, device)
    reporter.say(
        f"{_counted(model)} on {device}, products in "
        f"{str(precision).removeprefix('torch.')}, {len(work.training):,} {work.training.report.noun}"
    )
    result = Result(out, replace(work, recipe=recipe), model, objective(work), start)
    kept_bytes = saved.progress.metrics_bytes if saved else 0
    replayed = seconds_after(out / "metrics.jsonl", kept_bytes)
    log = MetricsLog(out / "metrics.jsonl", kept_bytes=kept_bytes, tensorboard=recipe.training.tensorboard)
    around = Surroundings(
        log=log,
        reporter=reporter,
        checkpoints=out / "checkpoints",
        improved=result.write,
        saved=result.write_unfinished,
        replayed=replayed,
        from_scratch=start is None,
    )
    trainer = Trainer(model, loader, result.objective, recipe.training, precision=precision, around=around)
    trainer.progress = replace(trainer.progress, text=work.digest)
    if recipe.training.minutes is not None:
        reporter.say(_how_long(recipe.training.minutes))

    def draw() -> None:
        picture = out / "curves.png"
        attempt(picture, lambda: draw_curves(out / "metrics.jsonl", picture, recipe.name))

    finished = _trained(trainer, saved, draw)
    if finished and (recipe.training.early_stopping is None or not (out / "model").is_dir()):
        with trainer.average.applied():
            result.write()
    if finished:
        remove_parts(out / UNFINISHED, model_folder.PARTS)
        result.judge(reporter)
    return finished


def _mark_stale(folder: Path, c: config.Training, p: checkpoint.Progress) -> None:
    """Write the step of the model that a run had come to, where the run now goes on from there: until it ends again,
    whoever reads the model is told. With early stopping it is the best so far, wherever the run is."""
    if folder.is_dir() and not clock.over(c, p.step, p.time) and not (folder / model_folder.STEP).exists():
        write_json(folder / model_folder.STEP, {"step": p.step})


def _how_long(minutes: float) -> str:
    """What a run in minutes takes in all, said before it begins."""
    most = minutes * (1 + SHARE)
    return (
        f"{minutes:g} minutes of training, {most:.1f} at most with validations; then the last of them and the scoring"
    )


@dataclass(frozen=True)
class Result:
    """What a run is for: the model as it stands, written as a folder with all that belongs to it.

    Of a model with adapters only what learned is written, and where its base is.
    """

    out: Path
    work: Work
    model: Model
    objective: Objective[AnyBatch]
    start: Start | None

    def write(self) -> None:
        """The model folder with its card and the held-out rows; beside it, what the last evaluation looks like."""
        self._write(self.out / "model")
        self.objective.illustrate(self.out)

    def write_unfinished(self, step: int) -> None:
        """The same of a run that has not ended, in a folder of its own; nothing where an earlier end left a model."""
        if not (self.out / "model").is_dir():
            self._write(self.out / UNFINISHED)
            write_json(self.out / UNFINISHED / model_folder.STEP, {"step": step})

    def _write(self, folder: Path) -> None:
        recipe = self.work.recipe
        contents = model_folder.Contents(self.model, self.work.tokenizer)
        if self.start is not None:
            contents = replace(contents, decoding=self.start.decoding, imported=self.start.imported)
            if recipe.adapter is not None:
                adapted = Adapted(recipe.adapter, self.start.base, learned(self.model))
                contents = replace(contents, adapted=adapted)
        if isinstance(recipe.model, config.EncoderDecoder | config.RecurrentEncoderDecoder):
            contents = replace(contents, decoding=recipe.decoding.plain())
        card = model_card(recipe, self.work.splits, self.model, self.out)
        model_folder.write(folder, contents, model_folder.Papers(dump_toml(recipe), card))
        write_text(folder / "test.jsonl", write_rows(self.work.splits.test))

    def judge(self, reporter: Reporter) -> None:
        """The model in the folder on what was held out; its card says it, and `scores.json` for programs."""
        folder, table = self.out / "model", self.work.splits.test
        try:
            model = model_folder.read(folder, self.model.device).model
            found = self.work.task.measure(model, self.work.recipe, table, self.work.tokenizer)
        except DataError as error:
            reporter.say(f"not judged on what was held out: {error}")
            return
        reporter.say(f"held out: {found}")
        # A BLEU of 0.0 alone may be that of short texts that are all right; their loss is then low.
        guessing = found.scores["loss"] > math.log(self.model.config.vocab_size) / 2
        if round(found.scores.get("bleu", 1.0), 1) == 0 and guessing:
            reporter.say(UNLEARNED)
        card = model_card(self.work.recipe, self.work.splits, self.model, self.out, found)
        write_text(folder / "README.md", card)
        write_json(folder / "scores.json", {"held_out": found.scores, found.noun: found.count})


def _counted(model: Model) -> str:
    """How many parameters there are, and how many of them learn where not all do."""
    every, learning = (sum(p.numel() for p in some) for some in (model.parameters(), learned(model).values()))
    return f"{every:,} parameters" if every == learning else f"{learning:,} of {every:,} parameters learn,"


def _trained(trainer: Trainer[AnyBatch], saved: Checkpoint | None, draw: Callable[[], None]) -> bool:
    """Train, from the checkpoint where there is one, and draw the curves whatever happens."""
    log, reporter = trainer.around.log, trainer.around.reporter
    try:
        if saved is not None:
            trainer.restore(saved)
            reporter.say(_going_on(trainer))
        with reporter:
            finished = trainer.train()
    except BaseException:
        with suppress(Exception):  # the picture must not hide what happened
            draw()
        raise
    finally:
        log.close()
    draw()
    return finished


def _going_on(trainer: Trainer[AnyBatch]) -> str:
    """Where a run goes on, and with which learning rate."""
    c, p = trainer.c, trainer.progress
    whole = f"{c.steps:,}" if c.minutes is None else f"{p.seconds / 60:.1f} of {c.minutes:g} minutes"
    where = f"going on from step {p.step:,}" + (f" of {whole}" if c.minutes is None else f", {whole}")
    if clock.over(c, p.step, p.time):
        return f"{where}: that was all; give it more with --set training.{'steps' if c.steps else 'minutes'}=…"
    factor = clock.place(c, p.step, p.time).factor
    return f"{where}; the learning rate is at {factor:.0%} of its peak"


def _last_checkpoint(out: Path, work: Work) -> Checkpoint | None:
    """The last checkpoint of the run in `out`, if there is one.

    Raises:
        CheckpointError: it is damaged. DataError: the text or the tokenizer is not what the run began with.
    """
    last = checkpoint.listed(out / "checkpoints")
    saved = checkpoint.read(last[-1]) if last else None
    if saved is not None and saved.progress.text != work.digest:
        raise DataError(
            f"the training text or the tokenizer is not what {out} began with",
            "Put back the text and tokenizer.json as they were, or start another run.",
        )
    return saved


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


def _require_apart(start: Start, out: Path) -> None:
    """Raise where what a run begins with would be replaced by it."""
    if Path(start.base.path).is_relative_to(out.resolve()):
        raise ConfigError(f"start.path = '{start.begun.path}' stands in {out} itself", "Choose another --out.")


def _with_paths(recipe: config.Recipe, folder: Path) -> config.Recipe:
    """The paths of the text made absolute, so that the recipe in the run's folder can be trained from there."""

    def placed(part: Any) -> Any:
        paths = [name for name in ("source", "target", "path") if name in type(part).model_fields]
        return part.model_copy(update={name: str(folder / getattr(part, name)) for name in paths})

    data = recipe.data
    how = data.split
    if isinstance(how, config.GivenSplit):
        how = how.model_copy(update={"validation": placed(how.validation), "test": placed(how.test)})
    data = data.model_copy(update={"source": placed(data.source), "split": how})
    return recipe.model_copy(update={"data": data, "start": None if recipe.start is None else placed(recipe.start)})


def _with_precision(recipe: config.Recipe, precision: str) -> config.Recipe:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"precision": precision})})


def remove_run(out: Path) -> None:
    """Remove what the run in `out` consists of, and the folder where nothing else stands in it."""
    _remove_all_but_recipe(out)
    remove_parts(out, ("recipe.toml", "sublayer_tokenizer.json", LOCK))


def _remove_all_but_recipe(out: Path) -> None:
    for saved in checkpoint.listed(out / "checkpoints"):
        remove_parts(saved, checkpoint.FILES)
    remove_parts(out / "checkpoints", ())
    for name in ("model", UNFINISHED):
        remove_parts(out / name, model_folder.PARTS)
    remove_parts(out / "tensorboard", ("events.out.tfevents.*",))
    for name in ("tokenizer.json", "metrics.jsonl", "curves.png", "confusion.png", "machine.json", conditions.FILE):
        with suppress(OSError):
            (out / name).unlink()


def _begun(recipe: config.Recipe, out: Path, device: torch.device) -> config.Recipe:
    """Make `out` the folder of a new run: the resolved recipe is written, and an earlier run removed.

    What "auto" found is written down, so that a run that goes on elsewhere, or on a busier day, goes on the same way.
    """
    # What cannot be removed here cannot be written below, which says so.
    _remove_all_but_recipe(out)
    precision = resolve_precision(recipe.training.precision, device)
    recipe = _with_precision(recipe, str(precision).removeprefix("torch."))
    write_text(out / "recipe.toml", dump_toml(recipe))
    return recipe


MAY_CHANGE = ("steps", "minutes", "validate_every", "checkpoint_every", "keep_checkpoints", "tensorboard")
"""Settings of the training that may be others when it goes on: how long it is, and what does not change its steps."""


def _resumed(recipe: config.Recipe, out: Path, work: Work, device: torch.device, reporter: Reporter) -> config.Recipe:
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
        here = Conditions.here(before, work, device)
        require_same(began, before, here, out, {f"training.{name}" for name in MAY_CHANGE})
        say_what_differs(began, here, reporter)
    if new != old:
        reporter.say(f"changed: {', '.join(changes(old.plain(), new.plain(), 'training').values())}")
        before = before.model_copy(update={"training": new})
        write_text(path, dump_toml(before))
    return before
