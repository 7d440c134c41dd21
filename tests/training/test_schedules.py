"""Learning rates, by the formulas of the papers."""

from __future__ import annotations

import math

import pytest

from sublayer import config
from sublayer.training.schedules import factor, paper_peak


@pytest.mark.parametrize(("dim", "warmup"), [(512, 4000), (64, 7)])
def test_inverse_sqrt_is_equation_3_of_the_paper(dim: int, warmup: int) -> None:
    schedule = config.InverseSquareRoot(warmup=warmup)
    for step in (1, 2, warmup - 1, warmup, warmup + 1, 3 * warmup, 100_000):
        paper = dim**-0.5 * min(step**-0.5, step * warmup**-1.5)
        assert paper_peak(dim, warmup) * factor(schedule, step, warmup, None) == pytest.approx(paper, rel=1e-12)


@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
def test_cosine_and_linear_reach_their_ends(final: float) -> None:
    cosine, linear = config.Cosine(warmup=10, final=final), config.Linear(warmup=10, final=final)
    for schedule in (cosine, linear):
        assert [factor(schedule, step, 10, None) for step in (1, 5, 10)] == [0.1, 0.5, 1.0]
        assert factor(schedule, 110, 10, 110) == pytest.approx(final)
        assert factor(schedule, 500, 10, 110) == pytest.approx(final)
        assert factor(schedule, 60, 10, 110) == pytest.approx((1 + final) / 2)
    # A quarter of the way: where a cosine is not a line.
    assert factor(linear, 35, 10, 110) == pytest.approx(final + (1 - final) * 0.75)
    assert factor(cosine, 35, 10, 110) == pytest.approx(final + (1 - final) * (1 + math.cos(math.pi / 4)) / 2)


@pytest.mark.parametrize("schedule", [config.Cosine(warmup=5), config.Linear(warmup=5)])
def test_after_the_warm_up_the_last_step_must_be_known(schedule: config.Schedule) -> None:
    with pytest.raises(ValueError, match="needs to know when the training ends"):
        factor(schedule, 6, 5, None)


@pytest.mark.parametrize("schedule", [config.Cosine(warmup=5), config.Linear(warmup=5)])
def test_training_that_ends_with_the_warm_up(schedule: config.Schedule) -> None:
    assert factor(schedule, 5, 5, 5) == 1.0
    assert factor(schedule, 6, 5, 5) == 0.0
