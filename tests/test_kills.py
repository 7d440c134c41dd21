"""A short run of `kills.py`; the long one is `make kills`."""

from __future__ import annotations

from pathlib import Path

from kills import Killing


def test_runs_that_are_killed_come_to_what_undisturbed_ones_come_to(tmp_path: Path) -> None:
    killing = Killing(1, tmp_path, 200)
    killing.go_on_until(6)
    assert killing.wrong == []
    assert killing.kills > 0
