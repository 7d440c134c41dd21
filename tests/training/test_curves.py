"""The curves of a run as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from sublayer.training.curves import draw_curves

STEPS: list[dict[str, Any]] = [
    {"step": step, "epoch": 0, "loss": 7.0 / step, "learning_rate": 1e-3, "seconds": 60.0 * step}
    for step in range(1, 9)
]
CHECKS: list[dict[str, Any]] = [
    {"step": step, "seconds": 60.0 * step, "valid/loss": 3.0, "valid/bleu": float(step)} for step in (4, 8)
]


@pytest.mark.parametrize("checks", [[], CHECKS])
def test_what_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checks: list[dict[str, Any]]) -> None:
    figures: list[Figure] = []
    real = Figure.savefig

    def savefig(self: Figure, *arguments: Any, **options: Any) -> None:
        figures.append(self)
        real(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in [*STEPS, *checks]))
    draw_curves(log, tmp_path / "curves.png", "a run")
    assert imread(tmp_path / "curves.png").shape[:2] == (480, 1320)
    drawn = {
        (line.get_xdata()[-1], line.get_ydata()[-1], len(line.get_xdata()))
        for axes in figures[0].axes
        for line in axes.get_lines()
    }
    assert (8, 7.0 / 8, 8) in drawn  # the loss by step
    assert (8, 1e-3, 8) in drawn  # the learning rate
    assert ((8, 3.0, 2) in drawn) == bool(checks)  # validation loss by step
    assert ((8.0, 8.0, 2) in drawn) == bool(checks)  # BLEU by minutes


def test_nothing_is_drawn_before_the_first_step(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text("")
    draw_curves(log, tmp_path / "curves.png", "a run")
    assert not (tmp_path / "curves.png").exists()
