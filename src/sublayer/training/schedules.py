"""The learning rate as a function of how far the training is: a factor on the peak.

    inverse-sqrt   min(t / w, sqrt(w / t))          section 5.3, equation 3, divided by its peak (D w) ** -0.5
    cosine         t / w, then final + (1 - final) (1 + cos(pi (t - w) / (n - w))) / 2
    linear         t / w, then 1 - (1 - final) (t - w) / (n - w)

with t the step counted from 1, w the warm-up, n the last step; or all three in seconds (`training/clock.py`).
"""

from __future__ import annotations

import math

from sublayer import config


def factor(schedule: config.Schedule, at: float, warmup: float, last: float | None) -> float:
    """The learning rate at `at`, as a part of the peak.

    Args:
        at, warmup, last: of one unit, steps or seconds. last: may be None where the schedule has no end.
    """
    if at <= warmup:
        return at / warmup if warmup else 1.0  # both are 0 where a clock has stood still
    if isinstance(schedule, config.InverseSquareRoot):
        return math.sqrt(warmup / at)
    if last is None:
        raise ValueError(f"the schedule '{schedule.type}' needs to know when the training ends")
    done = min(1.0, (at - warmup) / (last - warmup)) if last > warmup else 1.0
    shape = (1 + math.cos(math.pi * done)) / 2 if isinstance(schedule, config.Cosine) else 1 - done
    return schedule.final + (1 - schedule.final) * shape


def paper_peak(dim: int, warmup: int) -> float:
    """The paper's learning rate at the end of its warm-up: (D w) ** -0.5."""
    return (dim * warmup) ** -0.5
