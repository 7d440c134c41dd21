"""Recipes and model folders that were written with a setting's former name are read as though they had today's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sublayer import config
from sublayer.config.former_names import FORMER, with_present_names
from sublayer.config.load import load_recipe, resolve
from sublayer.errors import ConfigError
from sublayer.training.conditions import read_conditions

FIXTURES = Path(__file__).parents[1] / "fixtures"
RUN = FIXTURES / "runs" / "adamw"
FOLDERS = sorted((FIXTURES / "models").iterdir())


def keys(data: Any) -> set[str]:
    if isinstance(data, dict):
        return set(data).union(*map(keys, data.values()))
    return set().union(*map(keys, data)) if isinstance(data, list) else set()


def as_far_as(said: Any, whole: Any) -> Any:
    """`whole` without the settings that came later, which have their defaults: nothing says them."""
    if isinstance(said, dict) and isinstance(whole, dict):
        return {key: as_far_as(said[key], value) for key, value in whole.items() if key in said}
    return whole


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_tree_of_a_folder_written_before(folder: Path) -> None:
    written = json.loads((folder / "config.json").read_text())["model"]
    assert {"types"} <= keys(written), "the fixture no longer shows it"
    tree = config.KINDS[written["kind"]].parse(written, "test").plain()
    said = with_present_names(written)
    assert as_far_as(said, tree) == said
    assert not {name for _, name in FORMER} & keys(tree)


def test_the_recipe_and_the_conditions_of_a_run_written_before() -> None:
    assert "wiring = " in (RUN / "run" / "recipe.toml").read_text()
    assert '"wiring": ' in (RUN / "run" / "conditions.json").read_text()
    model = load_recipe(str(RUN / "run" / "recipe.toml")).recipe.model
    assert isinstance(model, config.EncoderDecoder)
    assert model.encoder.block.norm_placement == model.decoder.block.norm_placement == "pre"
    conditions = read_conditions(RUN / "run")
    assert conditions is not None
    assert conditions.recipe["model"] == model.plain()


@pytest.mark.parametrize("name", ["wiring", "norm_placement"])
def test_either_name_is_laid_on_a_preset(name: str) -> None:
    data = {"model": {"preset": "gpt2", "decoder": {"block": {name: "sandwich"}}}}
    model = resolve(data)[0]["model"]
    assert model["decoder"]["block"] == {
        **config.preset("gpt2").plain()["decoder"]["block"],
        "norm_placement": "sandwich",
    }


@pytest.mark.parametrize(("below", "over"), [("wiring", "norm_placement"), ("norm_placement", "wiring")])
def test_what_is_laid_over_wins_whichever_name_it_has(below: str, over: str) -> None:
    data = {"model": {"preset": "gpt2", "decoder": {"block": {below: "sandwich"}}}}
    model = resolve(data, [f"model.decoder.block.{over}=parallel"])[0]["model"]
    assert model["decoder"]["block"]["norm_placement"] == "parallel"
    assert "wiring" not in model["decoder"]["block"]


def test_elsewhere_a_former_name_is_unknown_as_before() -> None:
    data = {**config.preset("gpt2").plain(), "wiring": "pre"}
    with pytest.raises(ConfigError, match="wiring: unknown key"):
        config.DecoderOnly.parse(data, "test")
