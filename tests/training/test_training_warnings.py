"""What a run says where it will not end well, and while something takes long."""

from __future__ import annotations

import io
import math
import time
from dataclasses import replace

import pytest
from rich.console import Console

from sublayer import config
from sublayer.training.checkpoint import Progress
from sublayer.training.metrics import RunningMean
from sublayer.training.progress import Bar, Busy, Lines
from sublayer.training.training_warnings import PATIENCE, TrainingWarnings


def minutes(**over: object) -> config.Training:
    settings = {"minutes": 1.0, "schedule": {"type": "linear", "warmup": 4}, **over}
    return config.Training.parse(settings, "test")


def said(
    warnings: TrainingWarnings, seconds: float, targets: int, steps: int, loss: float = 1.0
) -> list[tuple[int, str]]:
    """What is said, with the step after which."""
    found: list[tuple[int, str]] = []
    p = Progress()
    for step in range(1, steps + 1):
        warm = 4 * seconds if step >= 4 else None
        p = replace(p, step=step, seconds=step * seconds, pace=seconds, warm=warm)
        found += [(step, text) for text in warnings.after(p, loss, targets)]
    return found


def test_too_little_time_is_said_when_the_warm_up_is_over() -> None:
    """60 steps of 1,000 tokens in a minute, where 100,000 are needed: 1.7 minutes."""
    [(step, text)] = said(TrainingWarnings(minutes(), "tokens", 100_000, 50), 1.0, 1000, 20)
    assert step == 4
    assert "1 minutes are 60 steps and 60,000 tokens of the target" in text
    assert "about 100,000" in text
    assert "--set training.minutes=1.7 or more" in text
    assert said(TrainingWarnings(minutes(), "tokens", 60_000, 50), 1.0, 1000, 20) == []
    assert said(TrainingWarnings(minutes(), "tokens", 0, 50), 1.0, 1000, 20) == []
    assert said(TrainingWarnings(minutes(minutes="none", steps=60), "tokens", 100_000, 50), 1.0, 1000, 20) == []


def test_a_loss_above_that_of_knowing_nothing_is_said_once() -> None:
    nothing = math.log(50)
    [(step, text)] = said(TrainingWarnings(minutes(), "tokens", 0, 50), 1.0, 1, 200, loss=nothing + 0.1)
    assert step == 4 + PATIENCE - 1
    assert "has diverged" in text
    assert f"({nothing:.2f})" in text
    assert said(TrainingWarnings(minutes(), "tokens", 0, 50), 1.0, 1, 200, loss=nothing - 0.1) == []
    assert said(TrainingWarnings(minutes(), "tokens", 0, None), 1.0, 1, 200, loss=99.0) == []


def test_the_running_mean_is_right_from_the_first_value() -> None:
    mean = RunningMean(0.9)
    assert mean.add(3.0, 7) == pytest.approx(3.0)
    assert mean.add(5.0, 7) == pytest.approx((0.9 * 3 + 5) / 1.9)
    constant = RunningMean()
    assert [constant.add(2.5, weight) for weight in (1, 100, 3)] == pytest.approx([2.5] * 3)
    weighted = RunningMean(1.0)
    weighted.add(1.0, 1)
    assert weighted.add(4.0, 2) == pytest.approx(3.0)


def test_a_plain_log_says_what_takes_long() -> None:
    written = io.StringIO()
    with Lines(Console(file=written, width=200), every=0.1) as lines:
        lines.busy("step 12")
        time.sleep(0.5)
        lines.step(12, 20, 1.0, "", None)
        before = written.getvalue()
        time.sleep(0.3)
        assert written.getvalue() == before
    beats = [line for line in written.getvalue().splitlines() if line.startswith("step 12 is taking")]
    assert 2 <= len(beats) <= 5


def test_a_bar_says_what_takes_long() -> None:
    written = io.StringIO()
    bar = Bar(Console(file=written, width=200, force_terminal=True))
    bar._busy.quiet = 0.1
    with bar:
        bar.busy("validation")
        time.sleep(0.5)
    assert "validation is taking 0 s" in written.getvalue()


def test_what_is_short_is_not_said() -> None:
    busy = Busy(quiet=60)
    busy.begin("step 3")
    assert busy.message() is None
    busy = Busy(quiet=0)
    assert busy.message() is None
    busy.begin("step 3")
    assert busy.message() == "step 3 is taking 0 s"
