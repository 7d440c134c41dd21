"""How far a run is: by its steps, or by the clock where the recipe says minutes.

By the clock the place in the schedule is seconds trained over all seconds, so that the learning rate comes down in time
whatever the machine does. Only training counts: no validation, no saving. What a place is computed from is a value,
`Time`, which is kept in checkpoints: a run that goes on goes on from the second where it was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sublayer import config
from sublayer.errors import TrainingError
from sublayer.training.schedules import factor

WARMUP = 0.1
"""The most that a warm-up may take of a run in minutes: it ends after its steps, or after this part of the time."""

MEMORY = 0.8
"""Weight of the past in the running mean of a step's seconds; one step may be three times the mean in it, at most."""

STILL = 1000
"""Steps in which a clock that moves at all has moved: the coarsest tell a sixtieth of a second."""


@dataclass(frozen=True)
class Time:
    """seconds: of training so far, in whole microseconds. pace: a step's, as a running mean; 0 before the first.
    warm: the second at which the warm-up ended by the clock; None until then.
    """

    seconds: float = 0.0
    pace: float = 0.0
    warm: float | None = None

    def after(self, seconds: float, *, warmed: bool) -> Time:
        """The time after a step, at `seconds`; warmed: the warm-up is over with it."""
        took = seconds - self.seconds
        pace = MEMORY * self.pace + (1 - MEMORY) * min(took, 3 * self.pace) if self.pace else took
        return Time(seconds, pace, seconds if warmed and self.warm is None else self.warm)


@dataclass(frozen=True)
class Place:
    """done: part of the run that is over when the step is, up to 1. factor: of the peak learning rate, at the step.
    warmed: the warm-up ends with the step, or has ended before.
    """

    done: float
    factor: float
    warmed: bool


def counted(c: config.Training, time: Time, took: float) -> float:
    """The seconds after a step that took so many.

    By the clock no step counts more than half of what was left, or three steps: a machine that slept within a step, or
    stood still, would otherwise end a run whose learning rate has not come down.
    """
    if c.minutes is not None and time.pace:
        took = min(took, max(3 * time.pace, (_whole(c) - time.seconds) / 2))
    return round(time.seconds + took, 6)


def place(c: config.Training, step: int, time: Time) -> Place:
    """The place of the step after `step` steps and `time`: by the number of the step, or by the clock."""
    warmup = c.schedule.warmup
    if c.steps is not None:
        return Place((step + 1) / c.steps, factor(c.schedule, step + 1, warmup, c.steps), step + 1 >= warmup)
    whole = _whole(c)
    # Where the clock will stand after the step; that of the last one is the end, however long it is.
    at = time.seconds + time.pace
    if at + time.pace / 2 >= whole:
        at = whole
    if time.warm is None:
        warmed = max((step + 1) / warmup, at / (WARMUP * whole))
        return Place(at / whole, min(1.0, warmed), warmed >= 1)
    return Place(at / whole, factor(c.schedule, at, time.warm, whole), True)


def over(c: config.Training, step: int, time: Time) -> bool:
    """Whether all steps are done; or the time used, to the nearest step."""
    if c.steps is not None:
        return step >= c.steps
    return step > 0 and time.seconds + time.pace / 2 >= _whole(c)


def require_moving(c: config.Training, still: int) -> None:
    """Raise where a run by the clock would never end. still: steps since the clock moved.

    Raises:
        TrainingError: it stands still.
    """
    if c.minutes is not None and still >= STILL:
        raise TrainingError(
            f"training.minutes = {c.minutes:g}, and the clock of this machine has not moved in {still:,} steps",
            "Say how many steps instead: --set training.steps=…",
        )


def left(c: config.Training, step: int, time: Time) -> tuple[int | None, float | None]:
    """The number that the last step will have, as far as it is known, and the seconds until then."""
    if c.steps is not None:
        return c.steps, (c.steps - step) * time.seconds / step if step else None
    seconds = max(0.0, _whole(c) - time.seconds)
    return (step + round(seconds / time.pace) if time.pace else None), seconds


def continued(c: config.Training, step: int, time: Time) -> Time:
    """`time` of a run that goes on by the clock and knew none before: it was counted in steps.

    The pace is that of the whole, and the warm-up ended where its steps did.
    """
    if c.minutes is None or step == 0 or time.pace:
        return time
    warmup = c.schedule.warmup
    warm = None if step < warmup else round(time.seconds * warmup / step, 3)
    return replace(time, pace=time.seconds / step, warm=warm)


def _whole(c: config.Training) -> float:
    assert c.minutes is not None
    return 60 * c.minutes
