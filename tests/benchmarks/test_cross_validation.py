"""The folds of cross-validation: every text is tested once, and learned from or validated on in all other folds."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from cross_validation import folds, shown

TEXTS = [{"text": f"text {number}", "label": str(number % 2)} for number in range(53)]


def test_every_text_is_in_one_fold() -> None:
    parts = folds(TEXTS, 10, 1)
    assert sorted(text["text"] for part in parts for text in part) == sorted(text["text"] for text in TEXTS)
    assert {len(part) for part in parts} == {5, 6}


def test_the_folds_are_drawn_by_the_seed_alone() -> None:
    assert folds(TEXTS, 10, 1) == folds(TEXTS, 10, 1)
    assert folds(TEXTS, 10, 1) != folds(TEXTS, 10, 2)
    # In their own order texts may be sorted by label, or neighbours come from one review.
    assert folds(TEXTS, 10, 1)[0] != TEXTS[::10]


def test_a_row_is_a_seed_with_the_mean_of_its_folds() -> None:
    runs = [{"seed": 1, "fold": fold, "right": right, "of": 10, "seconds": 60.0} for fold, right in enumerate((7, 9))]
    [_, _, row] = shown(runs).splitlines()
    assert row == "| 1 | 80.00 | 14.1 | 70.0 90.0 | 20 | 60 |"
