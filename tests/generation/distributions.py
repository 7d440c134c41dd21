"""Whether what was counted has the distribution that it should have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def chi_square_p(counts: Mapping[Any, float], expected: Mapping[Any, float]) -> float:
    """The probability that counts from `expected` (probabilities) are as far from it as these, by Pearson's test.

    Zero where something was counted that cannot be. Outcomes that are expected fewer than 5 times are taken together.
    """
    total = sum(counts.values())
    if any(count and not expected.get(outcome) for outcome, count in counts.items()):
        return 0.0
    cells: list[tuple[float, float]] = []
    rare = [0.0, 0.0]
    for outcome, probability in expected.items():
        cell = (counts.get(outcome, 0), probability * total)
        if cell[1] < 5:
            rare = [rare[0] + cell[0], rare[1] + cell[1]]
        else:
            cells.append(cell)
    if rare[1] >= 5:
        cells.append((rare[0], rare[1]))
    statistic = sum((seen - wanted) ** 2 / wanted for seen, wanted in cells)
    freedom = torch.tensor((len(cells) - 1) / 2, dtype=torch.float64)
    return torch.special.gammaincc(freedom, torch.tensor(statistic / 2, dtype=torch.float64)).item()


def shifted(expected: Mapping[Any, float], by: float) -> dict[Any, float]:
    """`expected` with `by` of the probability moved from the most probable outcome to the one after it."""
    first, second = sorted(expected, key=lambda outcome: -expected[outcome])[:2]
    return {**expected, first: expected[first] - by, second: expected[second] + by}
