"""The exponent of growth that the benchmark of attention against length reports."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from attention_length import growth, growths


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_growth_is_the_power_of_the_law_that_made_the_values(power: float) -> None:
    lengths = [1024, 2048, 8192]
    assert growth(lengths, [3.0 * length**power for length in lengths]) == pytest.approx(power, abs=1e-9)


def test_each_contender_and_kind_has_its_own_exponent() -> None:
    rows = [
        {"contender": "a", "kind": kind, "length": length, "seconds": float(length**power), "gigabytes": float(length)}
        for kind, power in (("plain", 2), ("packed", 1))
        for length in (16, 32, 64)
    ]
    found = growths(rows)
    assert found["a plain"]["seconds"] == pytest.approx(2)
    assert found["a packed"]["seconds"] == pytest.approx(1)
    assert found["a packed"]["gigabytes"] == pytest.approx(1)
