"""The training loop. `Trainer.train` reads top to bottom; what it remembers between steps is a `Progress`."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from sublayer import config
from sublayer.data.batch import AnyBatch
from sublayer.data.loader import Cursor, Loader
from sublayer.errors import CheckpointError, TrainingError
from sublayer.models import Model
from sublayer.streams import forget_terminal
from sublayer.tasks.objective import Objective, shown
from sublayer.training import checkpoint, clock
from sublayer.training.averaging import build_average
from sublayer.training.checkpoint import Checkpoint, Progress
from sublayer.training.diagnosis import first_not_finite, gradient_not_finite
from sublayer.training.metrics import MetricsLog, RunningMean
from sublayer.training.optimizers import Optimizers
from sublayer.training.progress import Reporter
from sublayer.training.trainable import trainable_parameters
from sublayer.training.training_warnings import TrainingWarnings

SHARE = 0.1
"""The most of the training's time that validations take in a run in minutes, the last one apart; and so for saving."""

B = TypeVar("B", bound=AnyBatch)


@dataclass(frozen=True)
class TrainerContext:
    """What the loop talks to.

    checkpoints: folder to write them to. improved: called when early stopping's metric is the best so far, saved: after
    a checkpoint of a run that has not ended, with its step; both while the model has its averaged weights.
    replayed: the seconds of training after each step that was done before, and is done again because it came after the
    last checkpoint.
    from_scratch: the model began with random weights.
    """

    log: MetricsLog
    reporter: Reporter
    checkpoints: Path
    improved: Callable[[], None]
    saved: Callable[[int], None] = lambda step: None
    replayed: Mapping[int, float] = field(default_factory=dict[int, float])
    from_scratch: bool = True


class Trainer(Generic[B]):
    """A model, its data, what it is to become good at, and everything that changes the one by the others.

    precision: type of the products; float32, or bfloat16 by autocast.
    """

    def __init__(
        self,
        model: Model,
        loader: Loader[B],
        objective: Objective[B],
        c: config.Training,
        *,
        precision: torch.dtype,
        context: TrainerContext,
    ) -> None:
        self.model, self.loader, self.objective, self.c, self.context = model, loader, objective, c, context
        self.precision = precision
        self.optimizers = Optimizers(model, c, model.config.dim)
        self.average = build_average(model, c.averaging)
        self.progress: Progress = Progress()
        self._mean = RunningMean()
        # How long the last validation and the last checkpoint took: what the next will take.
        self._validation = self._saving = 0.0
        self._still = 0
        """Steps since the clock moved."""
        self._compiled = _WithHidden(model, _compiled(model.hidden, context.reporter)) if c.compile else model
        self._parameters = list(trainable_parameters(model).values())

    @cached_property
    def _warnings(self) -> TrainingWarnings:
        """Asked only where somebody is told of the steps."""
        least = self.objective.least if self.context.from_scratch else 0
        return TrainingWarnings(self.c, self.objective.unit, least, self.objective.choices(self.model.config))

    def train(self) -> bool:
        """Train to the end. Returns False where the user interrupted; the state is saved either way.

        Raises:
            TrainingError: a loss or a gradient is not finite, or the clock of a run in minutes stands still; nothing of
                that step is kept.
        """
        batches = self.loader.batches(Cursor(self.progress.epoch, self.progress.batch))
        self.model.train()
        with interruptible() as interrupted:
            while not self._finished():
                group = list(islice(batches, self.c.accumulate))
                self.context.reporter.busy(f"step {self.progress.step + 1:,}")
                started = time.perf_counter()
                place = clock.place(self.c, self.progress.step, self.progress.time)
                loss, norm, tokens = self._step([batch for _, batch in group], place.factor)
                seconds = time.perf_counter() - started
                self._still = 0 if seconds > 0 else self._still + 1
                clock.require_moving(self.c, self._still)
                self._count(group[-1][0], seconds, place)
                self._report(loss, norm, tokens, seconds)
                if self._finished() or self._due(self.c.validate_every, self._validation, self.progress.validating):
                    self._validate()
                stop = interrupted()
                if stop or self._finished() or self._due(self.c.checkpoint_every, self._saving, self.progress.saving):
                    self.save()
                if stop:
                    return False
        return True

    def save(self) -> Path:
        """Write a checkpoint of this moment."""
        self.context.reporter.busy("saving")
        started = time.perf_counter()
        self.progress = replace(self.progress, metrics_bytes=self.context.log.bytes)
        tensors = {
            "model": trainable_parameters(self.model),
            "optimizer": self.optimizers.state(),
            "average": self.average.state(),
            "random": checkpoint.random_state(self.model.device),
        }
        path = checkpoint.write(
            self.context.checkpoints, Checkpoint(self.progress, tensors), keep=self.c.keep_checkpoints
        )
        if not self._finished():
            with self.average.applied():
                self.context.saved(self.progress.step)
        self._saving = time.perf_counter() - started
        self.progress = replace(self.progress, saving=round(self.progress.saving + self._saving, 3))
        return path

    def restore(self, saved: Checkpoint) -> None:
        """Go back to the moment of a checkpoint.

        Raises:
            CheckpointError: it is of another model.
        """
        own = trainable_parameters(self.model)
        weights = saved.tensors["model"]
        other = {name for name in {*own, *weights} if name not in own or name not in weights}
        other |= {name for name in {*own} - other if own[name].shape != weights[name].shape}
        if other:
            raise CheckpointError(
                f"the checkpoint of step {saved.progress.step} is of another model: {', '.join(sorted(other)[:5])}",
                "Put back the checkpoints of this run.",
            )
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(weights[name])
        self.optimizers.load_state(saved.tensors["optimizer"])
        self.average.load_state(saved.tensors["average"])
        checkpoint.restore_random_state(saved.tensors["random"], self.model.device)
        p = saved.progress
        time = clock.continued(self.c, p.step, p.time)
        self.progress = replace(p, pace=time.pace, warm=time.warm)

    def _step(self, group: list[B], factor: float) -> tuple[float, float, int]:
        """One optimizer step over a group of batches: loss per target, gradient norm, targets.

        factor: of the peak learning rate.
        """
        targets = sum(batch.targets for batch in group)
        total = 0.0
        for batch in group:
            loss = self._loss(batch, targets)
            value = loss.item()
            if not _finite(value):
                where = first_not_finite(self.model, partial(self._uncompiled_loss, batch, targets))
                self._stop_at(batch, f"the loss is {value}", where)
            loss.backward()  # pyright: ignore[reportUnknownMemberType]
            total += value
        total_norm = torch.nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        norm = total_norm.item()
        if not _finite(norm):
            # Before clipping, which would divide every gradient by this norm and leave none to be told from another.
            self._stop_at(group[-1], f"the gradient's norm is {norm}", gradient_not_finite(self.model))
        if self.c.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, self.c.clip_norm, total_norm)
        self.optimizers.step(factor)
        self.optimizers.zero_grad()
        self.average.update(self.progress.step + 1)
        return total, norm, targets

    def _loss(self, batch: B, targets: int) -> Tensor:
        with self._autocast():
            return self.objective.loss(self._compiled, batch, targets)

    def _uncompiled_loss(self, batch: B, targets: int) -> Tensor:
        """The same; a compiled function does not call the hooks that look at each module."""
        with self._autocast():
            return self.objective.loss(self.model, batch, targets)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.model.device.type, self.precision, enabled=self.precision != torch.float32)

    def _count(self, cursor: Cursor, took: float, place: clock.Place) -> None:
        """The step is done: count it, and its time; of one that was done before, the time that it took then."""
        p = self.progress
        seconds = self.context.replayed.get(p.step + 1)
        if seconds is None:
            seconds = clock.counted(self.c, p.time, took)
        time = p.time.after(seconds, warmed=place.warmed)
        self.progress = replace(
            p,
            step=p.step + 1,
            epoch=cursor.epoch,
            batch=cursor.step,
            seconds=time.seconds,
            pace=time.pace,
            warm=time.warm,
            place=place.done,
        )

    def _finished(self) -> bool:
        p = self.progress
        if p.bad and self.c.early_stopping is not None and p.bad >= self.c.early_stopping.patience:
            return True
        return clock.over(self.c, p.step, p.time)

    def _due(self, every: int, takes: float, spent: float) -> bool:
        """Whether to do what is done every so many steps, of which the last took `takes` seconds, and all `spent`.

        In a run in minutes only where it leaves the training nine tenths of the time, and not shortly before the end,
        where it is done anyway.
        """
        p = self.progress
        if p.step % every:
            return False
        if self.c.minutes is None:
            return True
        _, left = clock.left(self.c, p.step, p.time)
        near = left is not None and left < every * p.pace / 4
        return not near and spent + takes <= SHARE * p.seconds

    def _validate(self) -> None:
        self.context.reporter.busy("validation")
        started = time.perf_counter()
        with self.average.applied():
            found = self.objective.evaluate(self.model)
            better = self._judge(found)
            if better and self.c.early_stopping is not None:
                self.context.improved()
        self._validation = time.perf_counter() - started
        spent = round(self.progress.validating + self._validation, 3)
        self.progress = p = replace(self.progress, validating=spent)
        measured = {f"valid/{name}": value for name, value in found.items()}
        self.context.log.write({"step": p.step, "seconds": round(p.seconds, 3), **measured})
        self.context.reporter.say(f"validation at step {p.step} ({p.seconds / 60:.1f} min): {shown(found)}")

    def _judge(self, found: Mapping[str, float]) -> bool:
        """Whether this validation is the best so far; counts those that are not."""
        name = "loss" if self.c.early_stopping is None else self.c.early_stopping.metric
        value, p = found[name], self.progress
        better = p.best is None or config.MEASURES[name].improves(value, p.best)
        if better:
            self.progress = replace(p, best=value, best_step=p.step, bad=0)
        else:
            self.progress = replace(p, bad=p.bad + 1)
        return better

    def _report(self, loss: float, norm: float, tokens: int, seconds: float) -> None:
        p = self.progress
        self.context.log.write(
            {
                "step": p.step,
                "epoch": p.epoch,
                "loss": loss,
                "learning_rate": self.optimizers.learning_rate,
                "gradient_norm": norm,
                "tokens": tokens,
                "seconds": p.seconds,
                "place": p.place,
            }
        )
        mean = self._mean.add(loss, tokens)
        last, left = clock.left(self.c, p.step, p.time)
        # A clock that stands still, or goes by a coarse tick, must not end a run.
        seconds = max(seconds, 1e-6)
        speed = f"{tokens / seconds:,.0f} {self.objective.unit}/s"
        self.context.reporter.step(p.step, last, mean, speed, left)
        for warning in self._warnings.after(p, mean, tokens):
            self.context.reporter.say(warning)

    def _stop_at(self, batch: AnyBatch, what: str, where: str) -> None:
        p = self.progress
        rows = ", ".join(str(row) for row in batch.rows[:5].tolist())
        raise TrainingError(
            f"{what} at step {p.step + 1} (epoch {p.epoch}, batch {p.batch}: "
            f"training {self.objective.rows} {rows}, …); first not finite: {where}",
            "Start another run with a lower learning rate, a longer warm-up or training.precision = 'float32'.",
        )


@contextmanager
def interruptible() -> Generator[Callable[[], bool]]:
    """Inside the block the first Ctrl-C (or SIGTERM, or SIGHUP) only sets a flag, which the given function tells.

    What whoever started the process lets it ignore (`nohup`) stays ignored.
    """
    asked: list[int] = []

    def ask(number: int, _frame: object) -> None:
        if number == getattr(signal, "SIGHUP", None):
            forget_terminal()
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    known = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    try:
        before = {
            number: signal.signal(number, ask) for number in known if signal.getsignal(number) is not signal.SIG_IGN
        }
    except ValueError:  # not in the main thread, where signals cannot be taken
        before = {}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _WithHidden:
    """A model, but for another `hidden`."""

    def __init__(self, model: Model, hidden: Callable[..., Tensor]) -> None:
        self._model, self.hidden = model, hidden

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def _finite(value: float) -> bool:
    return value - value == 0.0


def _compiled(function: Callable[..., Tensor], reporter: Reporter) -> Callable[..., Tensor]:
    """`torch.compile` of the function; where that does not work here, the function itself, with a word about it."""
    chosen: list[Callable[..., Tensor]] = []

    def run(*arguments: Tensor | None) -> Tensor:
        try:
            if not chosen:
                chosen.append(torch.compile(function, dynamic=True))
            return chosen[0](*arguments)
        except Exception as error:
            if chosen == [function]:
                raise
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            reporter.say(f"training.compile does not work here ({reason}); going on without it")
            chosen[:] = [function]
            return function(*arguments)

    return run
