"""What is removed before the comparison is measured anew: what was made for it, whatever it is called."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from small_run import write
from sublayer.compare.runs import remove_runs, trained
from sublayer.config.load import load_recipe
from sublayer.errors import ConfigError
from telling import Told

CPU = torch.device("cpu")


def test_only_runs_that_were_made_here_are_removed(tmp_path: Path) -> None:
    whole = load_recipe(str(write(tmp_path / "text", training={"steps": 2})))
    runs = tmp_path / "compare" / "runs" / "translation"
    trained(whole, runs / "ours", CPU, Told())
    trained(whole, runs / "both", CPU, Told())
    (runs / "both" / "notes.txt").write_text("mine")
    written = (runs / "ours" / "model" / "model.safetensors").stat().st_mtime_ns
    trained(whole, runs / "ours", CPU, Told())
    assert (runs / "ours" / "model" / "model.safetensors").stat().st_mtime_ns == written, "it is there already"
    mine = runs / "mine" / "model" / "config.json"
    mine.parent.mkdir(parents=True)
    mine.write_text("{}")
    (runs / "recipe.toml").write_text("mine too")
    remove_runs(runs)
    left = sorted(str(path.relative_to(runs)) for path in runs.rglob("*") if path.is_file())
    assert left == ["both/notes.txt", "mine/model/config.json", "recipe.toml"]
    with pytest.raises(ConfigError, match=r"mine was not made by this comparison\. Move it away"):
        trained(whole, runs / "mine", CPU, Told())
    assert mine.read_text() == "{}"


def test_nothing_is_left_where_all_was_made_here(tmp_path: Path) -> None:
    whole = load_recipe(str(write(tmp_path / "text", training={"steps": 2})))
    trained(whole, tmp_path / "runs" / "ours", CPU, Told())
    remove_runs(tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
