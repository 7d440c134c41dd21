"""Texts in turn: shares within one at every row, each row of a text once before any twice."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sublayer.data.mixture import MixedRows, turns

WEIGHTS = st.lists(st.integers(1, 25), min_size=1, max_size=6)


def furthest(weights: list[int], found: np.ndarray) -> float:
    """How far any text is from its share at any row."""
    given_out = np.array([np.cumsum(found == part) for part in range(len(weights))])
    shares = np.outer(np.array(weights) / sum(weights), np.arange(1, len(found) + 1))
    return float(abs(given_out - shares).max())


@given(WEIGHTS)
def test_every_text_has_its_share_within_one(weights: list[int]) -> None:
    found = turns(weights)
    assert np.array_equal(np.bincount(found, minlength=len(weights)), weights)
    assert furthest(weights, found) < 1


def test_text_after_text_has_not() -> None:
    assert furthest([5, 2, 1], np.repeat([0, 1, 2], [5, 2, 1])) > 1


@given(WEIGHTS, st.lists(st.integers(20, 90), min_size=6, max_size=6), st.integers(0, 2**60))
def test_rows_of_a_text_come_once_before_any_comes_twice(weights: list[int], sizes: list[int], seed: int) -> None:
    firsts = np.cumsum([0, *sizes[: len(weights)]])
    mixed, count = MixedRows(weights, firsts), 3 * sum(weights) + 5
    found = mixed.rows(seed, np.arange(count))
    parts = np.searchsorted(firsts, found, side="right") - 1
    assert np.array_equal(parts, np.resize(turns(weights), count))
    for part, size in enumerate(sizes[: len(weights)]):
        rows = (found[parts == part] - firsts[part]).tolist()
        for begin in range(0, len(rows), size):
            once = rows[begin : begin + size]
            assert len(set(once)) == len(once)


@given(WEIGHTS, st.lists(st.integers(0, 10**12), max_size=10))
def test_any_places_are_asked_for_alone(weights: list[int], places: list[int]) -> None:
    mixed = MixedRows(weights, np.arange(len(weights) + 1) * 50)
    wanted = [int(mixed.rows(3, np.array([place]))[0]) for place in places]
    assert mixed.rows(3, np.array(places, dtype=np.int64)).tolist() == wanted


def test_whoever_is_furthest_behind_is_not_enough() -> None:
    """The simpler rule, which looks at no deadline: with many small texts beside large ones it is over a row away."""
    weights = [60, 60, *[1] * 40]
    given_out, found = np.zeros(len(weights)), list[int]()
    for turn in range(1, sum(weights) + 1):
        chosen = int((turn * np.array(weights) / sum(weights) - given_out).argmax())
        given_out[chosen] += 1
        found.append(chosen)
    assert furthest(weights, np.array(found)) > 1
    assert furthest(weights, turns(weights)) < 1
