"""The training loop. `Trainer.train` reads top to bottom; what it remembers between steps is a `Progress`."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Generic, NoReturn, TypeVar

import torch
from torch import Tensor

from sublayer import config
from sublayer.data.batch import AnyBatch
from sublayer.data.loader import Cursor, Loader
from sublayer.errors import CheckpointError, TrainingError
from sublayer.models import Model
from sublayer.streams import forget_terminal, signals_taken
from sublayer.tasks.objective import Objective, shown
from sublayer.training import clock
from sublayer.training.averaging import build_average
from sublayer.training.checkpoint import Checkpoint, Progress
from sublayer.training.diagnosis import gradient_not_finite, output_not_finite, parameter_not_finite
from sublayer.training.distributed.processes import OneProcess
from sublayer.training.metrics import MetricsLog, RunningMean
from sublayer.training.optimizers import Optimizers
from sublayer.training.progress import Reporter, Silent
from sublayer.training.trainable import trainable_parameters
from sublayer.training.training_warnings import TrainingWarnings

SHARE = 0.1
"""The most of the training's time that validations take in a run in minutes, the last one apart; and so for saving."""

LOSS_ITSELF = "the loss itself (every output before it is finite)"
NORM_ITSELF = "the norm of the gradient (every gradient is finite, their squares add up to more than a float holds)"

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

    precision: type of the products; float32, or bfloat16 by autocast. processes: those that train together, each of
    which has a trainer; left out, this one alone. `model` is then what this process has of the model.
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
        processes: OneProcess[B] | None = None,
    ) -> None:
        self.loader, self.objective, self.c, self.context = loader, objective, c, context
        self.precision = precision
        # Whoever only makes steps says nothing to anybody.
        reporter = context.reporter if c.compile else Silent()
        self.processes = processes or OneProcess(model, objective, c, reporter)
        self.ranks, self.model = self.processes.ranks, self.processes.model
        self.optimizers = Optimizers(self.model, c, model.config.dim, self.processes.across)
        self.average = build_average(self.model, c.averaging)
        self.progress: Progress = Progress()
        self._mean = RunningMean()
        # How long the last validation and the last checkpoint took: what the next will take.
        self._validation = self._saving = 0.0
        self._still = 0
        """Steps since the clock moved."""

    @cached_property
    def _warnings(self) -> TrainingWarnings:
        """Asked only where somebody is told of the steps."""
        least = self.objective.least if self.context.from_scratch else 0
        return TrainingWarnings(self.c, self.objective.unit, least, self.objective.choices(self.model.config))

    def train(self) -> bool:
        """Train to the end. Returns False where the user interrupted; the state is saved either way.

        Every process does the same steps, and decides by the same numbers: the slowest says how long a step took, and
        all stop where one is asked to.

        Raises:
            TrainingError: a loss or a gradient is not finite, or the clock of a run in minutes stands still; nothing of
                that step is kept.
        """
        batches = self.loader.batches(Cursor(self.progress.epoch, self.progress.batch))
        self.model.train()
        stop = 0.0
        with interruptible() as interrupted:
            while not self._finished():
                group = list(islice(batches, self.c.accumulate))
                self.context.reporter.busy(f"step {self.progress.step + 1:,}")
                started = time.perf_counter()
                place = clock.place(self.c, self.progress.step, self.progress.time)
                loss, norm, tokens = self._step([batch for _, batch in group], place.factor)
                [seconds] = self.ranks.most(time.perf_counter() - started)
                self._still = 0 if seconds > 0 else self._still + 1
                clock.require_moving(self.c, self._still)
                self._count(group[-1][0], seconds, place)
                self._report(loss, norm, tokens, seconds)
                if self._finished() or self._due(self.c.validate_every, self._validation, self.progress.validating):
                    self._validate()
                [stop] = self.ranks.most(interrupted())
                if stop or self._finished() or self._due(self.c.checkpoint_every, self._saving, self.progress.saving):
                    self.save()
                if stop:
                    break
        self.processes.wait()
        return not stop

    def save(self) -> None:
        """Write a checkpoint of this moment."""
        self.context.reporter.busy("saving")
        started = time.perf_counter()
        self.progress = replace(self.progress, metrics_bytes=self.context.log.bytes)
        tensors = {
            "model": trainable_parameters(self.model),
            "optimizer": self.optimizers.state(),
            "average": self.average.state(),
            "random": self.processes.random_state(),
        }
        self.processes.save(self.context.checkpoints, Checkpoint(self.progress, tensors), keep=self.c.keep_checkpoints)
        if not self._finished():
            with self.processes.whole(self.average) as model:
                if model is not None:
                    self.context.saved(self.progress.step)
        [self._saving] = self.ranks.most(time.perf_counter() - started)
        self.progress = replace(self.progress, saving=round(self.progress.saving + self._saving, 3))

    def restore(self, saved: Checkpoint) -> None:
        """Go back to the moment of a checkpoint.

        Raises:
            CheckpointError: it is of another model.
        """
        own = trainable_parameters(self.model)
        weights = saved.tensors["model"]
        other = own.keys() ^ weights.keys()
        other |= {name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape}
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
        self.processes.restore_random_state(saved)
        p = saved.progress
        self.progress = p.at(clock.continued(self.c, p.step, p.time))

    def _step(self, group: Sequence[B | None], factor: float) -> tuple[float, float, int]:
        """One optimizer step over a group of batches: loss per target, gradient norm, targets, of all processes.

        factor: of the peak learning rate. A batch of which this process has no row is None.
        """
        targets = round(self.processes.sum(sum(batch.targets for batch in group if batch is not None)))
        total = 0.0
        for number, batch in enumerate(group):
            with self.processes.accumulating(last=number == len(group) - 1):
                loss = self._loss(batch, targets)
                own = loss.item()
                value = self.processes.sum(own)
                if not isfinite(value):
                    find = partial(self._bad_output, batch, targets)
                    self._stop_at(batch, f"the loss is {value}", own, find, LOSS_ITSELF)
                loss.backward()  # pyright: ignore[reportUnknownMemberType]
            total += value
        total_norm = self.processes.gradient_norm()
        norm = total_norm.item()
        if not isfinite(norm):
            # Before clipping, which would divide every gradient by this norm and leave none to be told from another.
            said = f"the gradient's norm is {norm}"
            self._stop_at(group[-1], said, norm, lambda: gradient_not_finite(self.model), NORM_ITSELF)
        # Well within, the factor would be 1, and to multiply every gradient by it takes as long as AdamW.
        if self.c.clip_norm is not None and norm > 0.99 * self.c.clip_norm:
            self.processes.clip(self.c.clip_norm, total_norm)
        self.optimizers.step(factor)
        self.optimizers.zero_grad()
        self.average.update(self.progress.step + 1)
        return total, norm, targets

    def _loss(self, batch: B | None, targets: int) -> Tensor:
        with self._autocast():
            if batch is None:
                # Every process goes through the model for every batch, or those that wait for it would wait for ever.
                return 0.0 * self.processes.loss(self.loader.one(), targets)
            return self.processes.loss(batch, targets)

    def _bad_output(self, batch: B | None, targets: int) -> str | None:
        def forward() -> None:
            with self._autocast():
                self.processes.uncompiled_loss(self.loader.one() if batch is None else batch, targets)

        found = parameter_not_finite(self.model)
        # All go through the model again, or none does.
        return found if any(self.ranks.all(found is not None)) else output_not_finite(self.model, forward)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.model.device.type, self.precision, enabled=self.precision != torch.float32)

    def _count(self, cursor: Cursor, took: float, place: clock.Place) -> None:
        """The step is done: count it, and its time; of one that was done before, the time that it took then."""
        p = self.progress
        seconds = self.context.replayed.get(p.step + 1)
        if seconds is None:
            seconds = clock.counted(self.c, p.time, took)
        p = p.at(p.time.after(seconds, warmed=place.warmed))
        self.progress = replace(p, step=p.step + 1, epoch=cursor.epoch, batch=cursor.step, place=place.done)

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
        with self.processes.whole(self.average) as model:
            found = self.ranks.of_first(None if model is None else self.objective.evaluate(model))
            assert found is not None, "the first process has the whole model"
            better = self._judge(found)
            if better and model is not None and self.c.early_stopping is not None:
                self.context.improved()
        [self._validation] = self.ranks.most(time.perf_counter() - started)
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

    def _stop_at(
        self, batch: B | None, what: str, own: float, find: Callable[[], str | None], otherwise: str
    ) -> NoReturn:
        """Say where it was, in the words of the first process that has found it.

        own: what is not finite, as this process has it. otherwise: where it is if nobody finds it.
        """
        p = self.progress
        here = "" if batch is None else ", ".join(str(row) for row in batch.rows[:5].tolist())
        told = self.ranks.all((find(), isfinite(own), here))
        where, _, rows = min(told, key=lambda each: (each[0] is None, each[1]))
        raise TrainingError(
            f"{what} at step {p.step + 1} (epoch {p.epoch}, batch {p.batch}: "
            f"training {self.objective.rows} {rows}, …); first not finite: {where or otherwise}",
            "Start another run with a lower learning rate, a longer warm-up or training.precision = 'float32'.",
        )


@contextmanager
def interruptible() -> Generator[Callable[[], bool]]:
    """Inside the block the first Ctrl-C (or SIGTERM, or SIGHUP) only sets a flag, which the given function tells.

    A second one of the same kind interrupts. (torchrun hands a Ctrl-C on as SIGTERM, which means no more by it.)

    What whoever started the process lets it ignore (`nohup`) stays ignored.
    """
    asked: list[int] = []

    def ask(number: int, _frame: object) -> None:
        if number == getattr(signal, "SIGHUP", None):
            forget_terminal()
        if number in asked:
            raise KeyboardInterrupt
        asked.append(number)

    with signals_taken(("SIGINT", "SIGTERM", "SIGHUP"), ask, lambda handled: handled is not signal.SIG_IGN):
        yield lambda: bool(asked)
