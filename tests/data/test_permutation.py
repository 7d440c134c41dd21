"""An order that is computed: every number once, whatever the size; and as random as a shuffle is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublayer.data import permutation
from sublayer.data.permutation import Permutation

SIZES = st.integers(1, 5000)
SEEDS = st.integers(0, 2**63 - 1)


def is_bijection(made: Permutation) -> bool:
    found = made(np.arange(made.size))
    return np.array_equal(np.sort(found), np.arange(made.size))


@given(SIZES, SEEDS, SEEDS)
def test_every_number_occurs_once(size: int, seed: int, epoch: int) -> None:
    assert is_bijection(Permutation(size, seed, epoch))


@given(SIZES, SEEDS, st.data())
def test_any_places_are_asked_for_alone(size: int, seed: int, data: st.DataObject) -> None:
    places = np.array(data.draw(st.lists(st.integers(0, size - 1), max_size=20)), dtype=np.int64)
    assert np.array_equal(Permutation(size, seed)(places), Permutation(size, seed)(np.arange(size))[places])


@given(st.integers(10**9, 2**40), SEEDS)
def test_sizes_of_which_no_list_could_be_made(size: int, seed: int) -> None:
    found = Permutation(size, seed)(np.arange(size - 1000, size))
    assert len(np.unique(found)) == 1000
    assert found.min() >= 0
    assert found.max() < size


def forgetful(self: Permutation, numbers: permutation.Numbers) -> permutation.Numbers:
    """A round function that is given the half it is added to: what comes out no longer tells what went in."""
    shift, mask = np.uint64(self._bits), np.uint64((1 << self._bits) - 1)
    left, right = numbers >> shift, numbers & mask
    for key in self._keys:
        left, right = right, left ^ (permutation._mixed(left + key) & mask)
    return left << shift | right


def test_a_network_that_is_none_is_no_bijection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Permutation, "_network", forgetful)
    assert not is_bijection(Permutation(4096, 1))


def test_without_walking_the_cycle_there_is_no_bijection(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Permutation._network
    monkeypatch.setattr(Permutation, "_network", lambda self, numbers: network(self, numbers) % np.uint64(self.size))
    assert not is_bijection(Permutation(3000, 1))


@pytest.mark.parametrize("size", [2, 5, 24, 1000])
def test_each_number_stands_everywhere_equally_often(size: int) -> None:
    """Pearson's chi-square of where the first and the last number stand, over 2,000 seeds."""
    draws, bins = 2_000, min(size, 20)
    for place in (0, size - 1):
        found = [int(Permutation(size, seed)(np.array([place]))[0]) * bins // size for seed in range(draws)]
        counts = np.bincount(found, minlength=bins)
        wanted = draws * np.bincount(np.arange(size) * bins // size, minlength=bins) / size
        # Five standard deviations over the mean of its distribution.
        assert ((counts - wanted) ** 2 / wanted).sum() < bins - 1 + 5 * (2 * (bins - 1)) ** 0.5
