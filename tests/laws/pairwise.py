"""Which configurations to try: every two choices of different parts stand together in at least one ("pairwise").

Nearly every fault of combination needs no more than two. Which configurations these are is computed, and the same each
time.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

Row = dict[str, Any]


def pairwise(factors: Mapping[str, Sequence[Any]], independent: set[frozenset[str]]) -> list[Row]:
    """Rows in which every pair of choices of two factors stands at least once; greedy, so few but not fewest.

    Each row starts from the first pair not yet covered, and fills the other factors one by one with the choice that
    covers most pairs with what the row has; of equals, the one used least.
    """
    open_pairs = {
        frozenset(((a, x), (b, y))): None
        for a, b in itertools.combinations(factors, 2)
        if frozenset((a, b)) not in independent
        for x in factors[a]
        for y in factors[b]
    }
    used = dict.fromkeys(((name, choice) for name in factors for choice in factors[name]), 0)
    rows: list[Row] = []
    while open_pairs:
        row: Row = dict(next(iter(open_pairs)))
        for name in factors:
            if name not in row:
                taken = list(row.items())
                row[name] = max(
                    factors[name],
                    key=lambda choice: (
                        sum(frozenset(((name, choice), other)) in open_pairs for other in taken),
                        -used[name, choice],
                    ),
                )
        for pair in itertools.combinations(row.items(), 2):
            open_pairs.pop(frozenset(pair), None)
        for item in row.items():
            used[item] += 1
        rows.append({name: row[name] for name in factors})
    return rows


def uncovered(rows: Sequence[Row], factors: Mapping[str, Sequence[Any]], independent: set[frozenset[str]]) -> list[Any]:
    """The pairs of choices that stand in no row, of factors that are not independent."""
    return [
        ((a, x), (b, y))
        for a, b in itertools.combinations(factors, 2)
        if frozenset((a, b)) not in independent
        for x, y in itertools.product(factors[a], factors[b])
        if not any(row[a] == x and row[b] == y for row in rows)
    ]
