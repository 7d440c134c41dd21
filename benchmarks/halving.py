"""Successive halving: try many settings for a short time, and give the whole time only to the best of them.

Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization" (2016). Every trial
here is a run of its own from the beginning, with a schedule that ends when its time does: what is compared are finished
models, not models in the middle of a longer run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Setting = TypeVar("Setting")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Rung:
    """A round of trials. share: of the whole time, for each trial. keep: how many go on to the next round."""

    share: float
    keep: int


def halve(
    settings: Sequence[Setting],
    rungs: Sequence[Rung],
    trial: Callable[[Setting, float], Result],
    better: Sequence[Callable[[Result], float]],
) -> list[list[tuple[Setting, Result]]]:
    """Return the settings and results of each rung, the best first; the first of the last rung has won.

    Args:
        trial: run a setting for a share of the time.
        better: what to rank a rung's results by, one a rung; larger is better.
    """
    rounds: list[list[tuple[Setting, Result]]] = []
    left = list(settings)
    for rung, measure in zip(rungs, better, strict=True):
        found = [(setting, trial(setting, rung.share)) for setting in left]
        # Stable: of two that are equal, the one that was named first goes on.
        found.sort(key=lambda pair: -measure(pair[1]))
        rounds.append(found)
        left = [setting for setting, _ in found[: rung.keep]]
    return rounds
