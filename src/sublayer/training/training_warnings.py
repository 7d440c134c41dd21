"""What a run says of itself when it is not going to end well."""

from __future__ import annotations

import math
from collections.abc import Generator

from sublayer import config
from sublayer.training import clock
from sublayer.training.checkpoint import Progress

PATIENCE = 50
"""Steps after the warm-up over which the mean loss must stay above that of knowing nothing, before it is said."""


class TrainingWarnings:
    """Watches the steps of a run, and says each thing once.

    unit: what targets are called. least: targets that a model must see before it does anything sensible, 0 where that
    is not known. choices: among how many a target is chosen, or None.
    """

    def __init__(self, c: config.Training, unit: str, least: int, choices: int | None) -> None:
        self._c, self._unit, self._least = c, unit, least
        self._nothing = None if choices is None else math.log(choices)
        self._steps = self._targets = self._above = 0
        self._warm = self._said = False

    def after(self, p: Progress, mean: float, targets: int) -> Generator[str]:
        """What there is to say after a step.

        mean: running mean of the loss. targets: of this step.
        """
        self._steps, self._targets = self._steps + 1, self._targets + targets
        if self._c.minutes is None:
            warm = p.step >= self._c.schedule.warmup
        else:
            warm = p.warm is not None
        if not warm:
            return
        if not self._warm:
            self._warm = True
            yield from self._too_short(p)
        yield from self._diverged(p, mean)

    def _too_short(self, p: Progress) -> Generator[str]:
        """Whether the time is enough, asked once, when the warm-up is over or the run goes on."""
        if self._c.minutes is None or not self._least:
            return
        each = self._targets / self._steps
        steps, _ = clock.left(self._c, p.step, p.time)
        expected = (steps or p.step) * each
        if expected >= self._least:
            return
        minutes = math.ceil(10 * self._c.minutes * self._least / max(expected, 1.0)) / 10
        yield (
            f"too little time: at this speed {self._c.minutes:g} minutes are {steps or p.step:,} steps and "
            f"{expected:,.0f} {self._unit} of the target, and a model from scratch says nothing sensible before it has "
            f"seen about {self._least:,}. Ctrl-C, then either go on with more time (--resume --set "
            f"training.minutes={minutes:g} or more), or start a smaller model (a lower model.dim, fewer layers)."
        )

    def _diverged(self, p: Progress, mean: float) -> Generator[str]:
        if self._nothing is None or self._said:
            return
        self._above = self._above + 1 if mean > self._nothing else 0
        if self._above >= PATIENCE:
            self._said = True
            yield (
                f"the training has diverged: for {PATIENCE} steps the loss ({mean:.2f}) has been above that of a model "
                f"that knows nothing ({self._nothing:.2f}). Stop it, and start again with a lower learning rate or a "
                "longer warm-up."
            )
