"""The numbers that the benchmarks report: medians of ratios, and curves read without looking ahead."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from quality_report import at, reached, tables
from summary import Summary, table


def test_a_disturbance_of_a_whole_round_cancels_in_the_ratio() -> None:
    ours, theirs = [20.0, 2.0, 20.0, 20.0], [10.0, 1.0, 10.0, 10.0]
    assert Summary.of_ratios(ours, theirs) == Summary(median=2.0, lower=2.0, upper=2.0, rounds=4)


def test_rounds_are_paired() -> None:
    with pytest.raises(ValueError, match="zip"):
        Summary.of_ratios([1.0, 2.0], [1.0])


def test_table_is_markdown() -> None:
    assert table(["what", "how many"], [["a", "1"]]) == "| what | how many |\n|---|---:|\n| a | 1 |"


def test_nothing_is_read_off_the_future() -> None:
    curve = [{"seconds": 50.0, "bleu": 1.0}, {"seconds": 110.0, "bleu": 9.0}]
    assert at(curve, 40.0) is None
    assert at(curve, 60.0) == 1.0
    assert at(curve, 120.0) == 9.0


def test_both_sides_stand_in_one_table() -> None:
    scores = {"bleu": 1.0, "chrf": 2.0, "sentences": 3, "bleu_signature": "b", "chrf_signature": "c"}
    side = {"steps": 1, "seconds": 60.0, "parameters": 5, "test": {"greedy": scores}}
    result = {
        "sublayer": side | {"curve": [{"seconds": 59.0, "bleu": 7.0}]},
        "baseline": side
        | {
            "curve": [{"seconds": 60.0, "bleu": 2.0}],
            "tried": [{"setting": "AdamW", "seconds": 60.0, "steps": 9, "loss": 1.0, "bleu": 2.0}],
            "precision": "float32",
        },
    }
    shown = tables(result, 60.0)
    assert "| 1.0 | 7.0 | 2.0 | +5.0 |" in shown
    assert "ends with 2.0 BLEU after 60 s; sublayer has that after 59 s, 98% of the time" in shown


def test_a_score_is_reached_at_the_first_validation_that_has_it() -> None:
    curve = [{"seconds": 50.0, "bleu": 1.0}, {"seconds": 110.0, "bleu": 9.0}, {"seconds": 170.0, "bleu": 8.0}]
    assert reached(curve, 1.5) == 110.0
    assert reached(curve, 9.5) is None
