"""Every choice that the ablation undoes is one that the recipe still has: trained, each would take minutes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sublayer.config.load import load_recipe

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from ablation import ROWS, Row


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_is_a_recipe(row: Row) -> None:
    undone, shipped = load_recipe("tatoeba-en-es-demo", row.overrides).recipe, load_recipe("tatoeba-en-es-demo").recipe
    assert (undone == shipped) == (not row.overrides)
