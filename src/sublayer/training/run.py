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

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sublayer import config
from sublayer.config.folders import UNFINISHED
from sublayer.config.load import LoadedRecipe
from sublayer.data.batch import AnyBatch
from sublayer.data.loader import Loader
from sublayer.drawing import attempt
from sublayer.errors import ConfigError
from sublayer.fast.machine import machine, machine_is, machine_of_run, write_machine
from sublayer.files import clear_leftovers, remove_parts
from sublayer.hub import folder as model_folder
from sublayer.models import Model, build_model
from sublayer.nn.adapter import adapt, kinds, left_out
from sublayer.tasks.objective import Objective
from sublayer.training import checkpoint, conditions
from sublayer.training.checkpoint import Checkpoint
from sublayer.training.conditions import Conditions, threads_of_run, write_conditions
from sublayer.training.curves import draw_curves
from sublayer.training.distributed.processes import OneProcess
from sublayer.training.distributed.ranks import Ranks, joined, restarted
from sublayer.training.metrics import MetricsLog, NoLog, require_tensorboard, seconds_after
from sublayer.training.progress import Reporter
from sublayer.training.result import Result
from sublayer.training.resuming import begun, going_on, last_checkpoint, mark_stale, resumed
from sublayer.training.run_folder import alone, check_folder
from sublayer.training.runtime import keep_freed_memory, resolve_precision
from sublayer.training.start import Start, begin_from
from sublayer.training.task_data import TaskData, objective, prepare
from sublayer.training.trainable import trainable_parameters
from sublayer.training.trainer import SHARE, Trainer, TrainerContext


def train(
    loaded: LoadedRecipe, out: Path, *, resume: bool, overwrite: bool, device: torch.device, reporter: Reporter
) -> bool:
    """Train what the recipe says into the folder `out`; False where the user interrupted.

    Raises:
        SublayerError: anything that the user can mend, before or during the training.
    """
    keep_freed_memory()
    with joined(device) as ranks:
        # What torchrun starts anew goes on.
        resume = ranks.of_first(resume or restarted()) and (not restarted() or (out / "recipe.toml").is_file())
        overwrite = overwrite and not restarted()
        with ExitStack() as held:
            if ranks.first:
                check_folder(out, loaded.folder, resume=resume, overwrite=overwrite)
                held.enter_context(alone(out))
                # Again: another process may have begun a run there, or ended one, until the lock was ours.
                check_folder(out, loaded.folder, resume=resume, overwrite=overwrite)
            ranks.wait()
            held.enter_context(machine_of_run(out, resume=resume))
            if not ranks.alone and device.type == "cpu":
                # What is computed by all in the same way is the same to the bit.
                held.enter_context(machine_is(ranks.of_first(machine())))
            held.enter_context(threads_of_run(out, resume=resume, reporter=reporter, processes=ranks.size))
            return _train(loaded, out, ranks, resume=resume, device=device, reporter=reporter)


def _train(
    loaded: LoadedRecipe, out: Path, ranks: Ranks, *, resume: bool, device: torch.device, reporter: Reporter
) -> bool:
    data = prepare(loaded.recipe, loaded.folder, out / "tokenizer.json" if resume else None, reporter, ranks)
    recipe = _with_paths(data.recipe, loaded.folder)
    torch.manual_seed(recipe.seed)
    model = build_model(recipe.model).to(device)
    start = _begin(model, replace(data, recipe=recipe), out, reporter)
    if start is not None:
        recipe = recipe.model_copy(update={"start": start.begun})
    if recipe.training.tensorboard:
        require_tensorboard()
    if resume:
        recipe = ranks.of_first(resumed(recipe, out, data, device, reporter, ranks.size) if ranks.first else recipe)
    processes = processes_of(ranks, model, objective(data), recipe.training, device, reporter)
    loader = Loader(data.training, recipe.training.batches, recipe.seed, processes.share)
    # Nothing in the folder is touched before this line: what cannot be trained must not cost an earlier run.
    if not resume:
        recipe = ranks.of_first(begun(recipe, out, device) if ranks.first else recipe)
    data = replace(data, recipe=recipe)
    if ranks.first:
        _furnish(out, data, device, ranks.size)
    ranks.wait()
    saved = last_checkpoint(out, data, processes.read) if resume else None
    if saved is not None and recipe.training.early_stopping is None and ranks.first:
        mark_stale(out / "model", recipe.training, saved.progress)
    result = Result(out, data, model, processes.objective, start)
    trainer = _trainer(result, loader, saved, processes, device, reporter)
    finished = _trained(trainer, saved, partial(_draw, out, recipe.name) if ranks.first else lambda: None)
    if finished and (recipe.training.early_stopping is None or not (out / "model").is_dir()):
        with processes.whole(trainer.average) as whole:
            if whole is not None:
                result.write()
    if finished and ranks.first:
        remove_parts(out / UNFINISHED, model_folder.PARTS)
        result.evaluate(reporter)
    ranks.wait()
    return finished


def processes_of(
    ranks: Ranks,
    model: Model,
    objective: Objective[AnyBatch],
    c: config.Training,
    device: torch.device,
    reporter: Reporter,
) -> OneProcess[AnyBatch]:
    """What trains the model: this process alone, or many.

    Raises:
        ConfigError: the recipe asks for what so many processes cannot do.
    """
    if ranks.alone:
        if c.parallel.tensor > 1:
            raise ConfigError(
                f"training.parallel.tensor = {c.parallel.tensor}, and this is one process",
                f"Start {c.parallel.tensor} or a multiple: torchrun --nproc-per-node {c.parallel.tensor} -m sublayer …",
            )
        return OneProcess(model, objective, c, reporter)
    from sublayer.training.distributed.many import ManyProcesses

    precision = resolve_precision(c.precision, device)
    return ManyProcesses(ranks, model, objective, c, reporter, precision=precision)


def _begin(model: Model, data: TaskData, out: Path, reporter: Reporter) -> Start | None:
    """Give `model` what the recipe says it begins with, and the recipe's adapters."""
    recipe = data.recipe
    if recipe.start is None:
        return None
    start = begin_from(model, recipe.start, data.tokenizer)
    if Path(start.base.path).is_relative_to(out.resolve()):
        raise ConfigError(f"start.path = '{recipe.start.path}' stands in {out} itself", "Choose another --out.")
    for line in start.told:
        reporter.say(line)
    if recipe.adapter is not None:
        names = adapt(model, recipe.adapter, start.fresh)
        plain = kinds(left_out(model))
        reporter.say(f"adapters beside {kinds(names)}{f'; without any: {plain}' if plain else ''}")
    return start


def _furnish(out: Path, data: TaskData, device: torch.device, processes: int) -> None:
    """Write what stands beside recipe.toml, which makes a folder a run; also for a run that was killed before this."""
    for written in (out, out / "checkpoints", out / "model"):
        clear_leftovers(written)
    checkpoint.prune(out / "checkpoints", data.recipe.training.keep_checkpoints)
    if device.type == "cpu" and not (out / "machine.json").is_file():
        write_machine(machine(), out / "machine.json")
    if not (out / conditions.FILE).is_file() and not checkpoint.listed(out / "checkpoints"):
        write_conditions(out, Conditions.here(data.recipe, data, device, processes))
    data.tokenizer.save(out / "tokenizer.json")


def _trainer(
    result: Result,
    loader: Loader[AnyBatch],
    saved: Checkpoint | None,
    processes: OneProcess[AnyBatch],
    device: torch.device,
    reporter: Reporter,
) -> Trainer[AnyBatch]:
    """What trains `result`; from a checkpoint the log goes on where that was written."""
    out, data, model = result.out, result.data, result.model
    c, examples = data.recipe.training, data.training
    precision = resolve_precision(c.precision, device)
    products = str(precision).removeprefix("torch.")
    count = f"{len(examples):,} {examples.report.noun}"
    ranks = processes.ranks
    together = "" if ranks.alone else f", {ranks.size} processes"
    reporter.say(f"{_counted(model)} on {device}{together}, products in {products}, {count}")
    kept_bytes = saved.progress.metrics_bytes if saved else 0
    # Before the log is opened, which then ends there.
    replayed = ranks.of_first(seconds_after(out / "metrics.jsonl", kept_bytes))
    path = out / "metrics.jsonl"
    context = TrainerContext(
        log=MetricsLog(path, kept_bytes=kept_bytes, tensorboard=c.tensorboard) if ranks.first else NoLog(),
        reporter=reporter,
        checkpoints=out / "checkpoints",
        improved=result.write,
        saved=result.write_unfinished,
        replayed=replayed,
        from_scratch=not isinstance(data.recipe.start, config.Checkpoint),
    )
    trainer = Trainer(model, loader, result.objective, c, precision=precision, context=context, processes=processes)
    trainer.progress = replace(trainer.progress, text=data.digest)
    if c.minutes is not None:
        # What a run in minutes takes in all.
        most = f"{c.minutes:g} minutes of training, {c.minutes * (1 + SHARE):.1f} at most with validations"
        reporter.say(f"{most}; then the last of them and the scoring")
    return trainer


def _draw(out: Path, title: str) -> None:
    picture = out / "curves.png"
    attempt(picture, lambda: draw_curves(out / "metrics.jsonl", picture, title))


def _counted(model: Model) -> str:
    """How many parameters there are, and how many of them learn where not all do."""
    every, learning = (
        sum(p.numel() for p in some) for some in (model.parameters(), trainable_parameters(model).values())
    )
    return f"{every:,} parameters" if every == learning else f"{learning:,} of {every:,} parameters learn,"


def _trained(trainer: Trainer[AnyBatch], saved: Checkpoint | None, draw: Callable[[], None]) -> bool:
    """Train, from the checkpoint where there is one, and draw the curves whatever happens."""
    log, reporter = trainer.context.log, trainer.context.reporter
    try:
        if saved is not None:
            trainer.restore(saved)
            reporter.say(going_on(trainer.c, trainer.progress))
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


def _with_paths(recipe: config.Recipe, folder: Path) -> config.Recipe:
    """The paths of the text made absolute, so that the recipe in the run's folder can be trained from there."""

    def placed(part: Any) -> Any:
        if isinstance(part, config.Mixture):
            parts = tuple(one.model_copy(update={"source": placed(one.source)}) for one in part.parts)
            return part.model_copy(update={"parts": parts})
        paths = [name for name in ("source", "target", "path") if name in type(part).model_fields]
        return part.model_copy(update={name: str(folder / getattr(part, name)) for name in paths})

    data = recipe.data
    how = data.split
    if isinstance(how, config.GivenSplit):
        how = how.model_copy(update={"validation": placed(how.validation), "test": placed(how.test)})
    shards = None if data.shards is None else str(folder / data.shards)
    data = data.model_copy(update={"source": placed(data.source), "split": how, "shards": shards})
    return recipe.model_copy(update={"data": data, "start": None if recipe.start is None else placed(recipe.start)})
