"""The learning rate as a function of the optimizer step: a factor on the peak.

    inverse-sqrt   min(t / w, sqrt(w / t))          section 5.3, equation 3, divided by its peak (D w) ** -0.5
    cosine         t / w, then final + (1 - final) (1 + cos(pi (t - w) / (n - w))) / 2
    linear         t / w, then 1 - (1 - final) (t - w) / (n - w)

with t the step counted from 1, w the warm-up, n the last step.
"""

from __future__ import annotations

import math

from sublayer import config


def factor(schedule: config.Schedule, step: int, last: int | None) -> float:
    """The learning rate at `step` (from 1), as a part of the peak.

    Args:
        last: the last step of the training; may be None while it is not known yet, during the warm-up.
    """
    warmup = schedule.warmup
    if step <= warmup:
        return step / warmup
    if isinstance(schedule, config.InverseSquareRoot):
        return math.sqrt(warmup / step)
    if last is None:
        raise ValueError(f"the schedule '{schedule.type}' needs the last step at step {step}, after its warm-up")
    done = min(1.0, (step - warmup) / max(1, last - warmup))
    shape = (1 + math.cos(math.pi * done)) / 2 if isinstance(schedule, config.Cosine) else 1 - done
    return schedule.final + (1 - schedule.final) * shape


def paper_peak(dim: int, warmup: int) -> float:
    """The paper's learning rate at the end of its warm-up: (D w) ** -0.5."""
    return (dim * warmup) ** -0.5
