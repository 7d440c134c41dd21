"""A plan is complete, within its budget, and a pure function of its arguments."""

from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublayer.config import Batching
from sublayer.data.batching import in_order, padding_waste, plan
from sublayer.errors import DataError

LENGTHS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=200)


def arrays(lengths: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(lengths, dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def corpus(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Lengths like those of short sentences and their translations."""
    random = np.random.default_rng(0)
    source = 2 + random.poisson(random.gamma(8.0, 1.0, rows))
    return source, np.maximum(2, source + random.integers(-3, 4, rows))


@given(
    lengths=LENGTHS,
    tokens=st.integers(80, 1000),
    buckets=st.booleans(),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 99),
)
def test_every_row_once_within_the_budget_and_the_same_again(
    lengths: list[tuple[int, int]], tokens: int, buckets: bool, seed: int, epoch: int
) -> None:
    source, target = arrays(lengths)
    batching = Batching(tokens=tokens, buckets=buckets)
    batches = plan(source, target, batching, seed, epoch)
    assert sorted(row for rows in batches for row in rows.tolist()) == list(range(len(lengths)))
    assert all(len(rows) * (source[rows].max() + target[rows].max()) <= tokens for rows in batches)
    again = plan(source.copy(), target.copy(), batching, seed, epoch)
    assert [rows.tolist() for rows in again] == [rows.tolist() for rows in batches]


@given(lengths=LENGTHS, tokens=st.integers(80, 1000), buckets=st.booleans())
def test_evaluation_sees_every_row_once(lengths: list[tuple[int, int]], tokens: int, buckets: bool) -> None:
    source, target = arrays(lengths)
    batches = in_order(source, target, Batching(tokens=tokens, buckets=buckets))
    order = [row for rows in batches for row in rows.tolist()]
    assert sorted(order) == list(range(len(lengths)))
    if not buckets:
        assert order == sorted(order)


@pytest.mark.parametrize("buckets", [True, False])
def test_epochs_and_seeds_differ_in_the_batches_and_not_only_in_their_order(buckets: bool) -> None:
    source, target = corpus(2000)
    batching = Batching(tokens=1000, buckets=buckets)
    made = [plan(source, target, batching, seed, epoch) for seed, epoch in ((1, 0), (1, 1), (2, 0), (0, 1))]
    contents = [{frozenset(rows.tolist()) for rows in batches} for batches in made]
    for place, one in enumerate(contents):
        for other in contents[:place]:
            assert len(one & other) < 0.1 * len(one)


def test_batches_are_not_sorted_by_length() -> None:
    source, target = corpus(5000)
    longest = np.array([target[rows].max() for rows in plan(source, target, Batching(tokens=1000), 1, 0)])
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3


def test_a_row_over_the_budget_is_named() -> None:
    source, target = arrays([(5, 5), (30, 31), (6, 6)])
    with pytest.raises(DataError, match=r"row 1 has 30 source and 31 target tokens, more than .*tokens = 60"):
        plan(source, target, Batching(tokens=60), 1, 0)


def test_buckets_waste_little_and_plan_quickly() -> None:
    source, target = corpus(120_000)
    before = time.process_time()
    batches = plan(source, target, Batching(tokens=6000), 1, 0)
    assert time.process_time() - before < 1.0
    assert padding_waste(batches, source, target) < 0.07
    # What is over a round number of rows is left to the next batch, so batches are not quite full.
    room = np.array([6000 // (source[rows].max() + target[rows].max()) for rows in batches])
    held = np.array([len(rows) for rows in batches])
    assert np.mean(held / np.maximum(room, 1)) > 0.9
    loose = plan(source, target, Batching(tokens=6000, buckets=False), 1, 0)
    assert padding_waste(loose, source, target) > 0.3


@given(lengths=LENGTHS, tokens=st.integers(80, 4000), buckets=st.booleans())
def test_a_batch_ends_because_the_next_row_does_not_fit_or_at_a_round_number(
    lengths: list[tuple[int, int]], tokens: int, buckets: bool
) -> None:
    source, target = arrays(lengths)
    batches = in_order(source, target, Batching(tokens=tokens, buckets=buckets))
    for rows, after in pairwise(batches):
        taken = np.concatenate([rows, after])
        fitting = 0
        while (
            fitting < len(taken)
            and (fitting + 1) * (source[taken[: fitting + 1]].max() + target[taken[: fitting + 1]].max()) <= tokens
        ):
            fitting += 1
        # Of 2^4 rows and more, at most one in nine is left to the next batch, and the number has four binary digits.
        if fitting < len(taken):
            assert fitting * 8 / 9 <= len(rows) <= fitting
            assert len(rows) == fitting or fitting > 16
        assert int(f"{len(rows):b}".rstrip("0") or "0", 2) < 16 or fitting == len(taken)


def test_batches_have_few_shapes() -> None:
    source, target = corpus(120_000)
    batches = plan(source, target, Batching(tokens=3000), 1, 0)
    shapes = Counter((len(rows), int(source[rows].max()), int(target[rows].max())) for rows in batches)
    often = np.cumsum([count for _, count in shapes.most_common()]) / len(batches)
    assert np.searchsorted(often, 0.8) < 0.05 * len(batches)
    # Every product over a batch's positions has rows * longest of them.
    assert len({rows * longest for rows, longest, _ in shapes}) < 0.05 * len(batches)
