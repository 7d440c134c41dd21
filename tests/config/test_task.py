"""Tasks in a recipe: what fits what, in one line; and a model laid on the one that it starts from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from small_task import TASKS, plain
from sublayer.config import MEASURES, MaskedTask, Recipe, TranslationTask
from sublayer.config.load import dump_toml, load_recipe, recipes_folder, shipped_recipes
from sublayer.config.presets import merge
from sublayer.errors import ConfigError


@pytest.mark.parametrize("name", TASKS)
def test_a_recipe_of_every_task_is_written_and_read_back(tmp_path: Path, name: str) -> None:
    recipe = Recipe.parse(plain(name), name)
    (tmp_path / "r.toml").write_text(dump_toml(recipe))
    assert load_recipe(str(tmp_path / "r.toml")).recipe == recipe


def test_a_recipe_without_a_task_translates() -> None:
    from small_run import recipe

    data = recipe()
    assert Recipe.parse(data, "r").task == TranslationTask()
    del data["model"]["kind"]
    assert Recipe.parse(data, "r").model.kind == "encoder-decoder"


@pytest.mark.parametrize(
    ("name", "over", "says"),
    [
        (
            "causal",
            {"model": TASKS["denoising"][1]},
            "task 'causal' trains model.kind = 'decoder-only', not 'encoder-decoder'",
        ),
        ("causal", {"task": {"type": "translation"}}, "task 'translation' trains model.kind = 'encoder-decoder'"),
        (
            "masked",
            {"model": {"head": {"type": "tagging"}}},
            "task 'masked' needs model.head.type = 'masked-language', not 'tagging'",
        ),
        (
            "causal",
            {"data": {"source": {"type": "tsv", "path": "a"}}},
            "reads data.source.type = 'corpus', 'corpora', 'text', 'text-jsonl', 'text-parquet', not 'tsv'",
        ),
        (
            "tagging",
            {
                "data": {
                    "split": {
                        "type": "given",
                        "validation": {"type": "conll", "path": "a"},
                        "test": {"type": "text", "path": "a"},
                    }
                }
            },
            "task 'tagging' reads data.split.test.type = 'conll', not 'text'",
        ),
        (
            "causal",
            {"training": {"early_stopping": {"metric": "bleu"}}},
            "task 'causal' measures 'loss', 'perplexity', 'word_perplexity': training.early_stopping.metric cannot be",
        ),
        ("causal", {"task": {"stride": 33}}, "task.stride = 33 is more than data.max_length = 32"),
        ("masked", {"data": {"max_length": 4}}, "data.max_length = 4 is less than 8"),
        ("masked", {"task": {"mask": 0.9, "random": 0.2}}, "task.mask + task.random = 1.1 is more than 1"),
        (
            "classification",
            {"task": {"weights": {"type": "given", "values": [1.0]}}},
            "task.weights.values has 1 weights for the 0 labels of model.head.labels",
        ),
        ("masked", {"task": {"rate": 1.5}}, "task.rate: should be less than 1"),
        ("masked", {"task": {"type": "mask"}}, "task.type: unknown type 'mask'; did you mean 'masked'?"),
    ],
)
def test_what_does_not_fit_is_one_line(name: str, over: dict[str, Any], says: str) -> None:
    data = merge(plain(name), over)
    if "model" in over and "kind" in over["model"]:
        data["model"] = over["model"]
    with pytest.raises(ConfigError) as caught:
        Recipe.parse(data, "r")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_measure_of_a_task_can_be_judged() -> None:
    for name in TASKS:
        task = Recipe.parse(plain(name), name).task
        assert task.metrics[0] == "loss"
        assert set(task.metrics) <= MEASURES.keys()


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_load_and_are_written_back(tmp_path: Path, name: str) -> None:
    recipe = load_recipe(name).recipe
    (tmp_path / "r.toml").write_text(dump_toml(recipe))
    assert load_recipe(str(tmp_path / "r.toml")).recipe == recipe
    assert (recipes_folder() / f"{name}.toml").is_file()


def started(folder: Path, model: dict[str, Any], *overrides: str, vocab_size: int = 8000) -> Recipe:
    below = Recipe.parse(plain("masked", model={"vocab_size": vocab_size}), "r").model
    (folder / "base" / "model").mkdir(parents=True, exist_ok=True)
    (folder / "base" / "model" / "config.json").write_text(json.dumps({"model": below.plain()}))
    data = plain("masked")
    del data["tokenizer"]
    data |= {"start": {"path": "base"}, "model": model}
    (folder / "r.toml").write_text(tomli_w.dumps(data))
    return load_recipe(str(folder / "r.toml"), overrides).recipe


def test_a_model_is_laid_on_the_one_that_it_starts_from(tmp_path: Path) -> None:
    below = Recipe.parse(plain("masked"), "r").model
    assert started(tmp_path, {}).model == below
    changed = started(tmp_path, {"encoder": {"block": {"dropout": 0.3}}}, "model.max_length=48")
    assert changed.model.encoder.block.dropout == 0.3
    assert changed.model.max_length == 48
    assert changed.model.encoder.block.attention == below.encoder.block.attention
    assert isinstance(changed.task, MaskedTask)


def test_a_model_that_says_its_kind_stands_by_itself(tmp_path: Path) -> None:
    own = merge(TASKS["masked"][1], {"dim": 32})
    # But for the vocabulary, which is the tokenizer's.
    wanted = Recipe.parse(plain("masked", model={"dim": 32, "vocab_size": 299}), "r").model
    assert started(tmp_path, own, vocab_size=299).model == wanted


def test_the_recipe_of_a_run_that_started_elsewhere_needs_nothing_else(tmp_path: Path) -> None:
    recipe = started(tmp_path, {})
    (tmp_path / "written.toml").write_text(dump_toml(recipe))
    (tmp_path / "base" / "model" / "config.json").unlink()
    assert load_recipe(str(tmp_path / "written.toml")).recipe == recipe


TSV = {"type": "labelled-tsv", "path": "a"}
MADE = {"user": "{text}", "assistant": "{label}"}


@pytest.mark.parametrize(
    ("task", "source", "says"),
    [
        ({}, TSV, "data.source has no conversations: say in task.messages what is asked and answered"),
        ({"messages": MADE}, None, "task.messages is set, but a source of the type 'chat' has messages of its own"),
        ({"messages": {**MADE, "user": "{txt}"}}, TSV, "task.messages.user: there is no field {txt}; known: {text}"),
        ({"messages": {**MADE, "user": "{text.x}"}}, TSV, "only the name of a field may stand in braces"),
        ({"messages": {**MADE, "user": "{text!r}"}}, TSV, "only the name of a field may stand in braces"),
        ({"messages": {**MADE, "user": "{}"}}, TSV, "only the name of a field may stand in braces"),
        ({"messages": {**MADE, "user": "{text"}}, TSV, "task.messages"),
        ({"messages": {**MADE, "user": "Well?"}}, TSV, "has no field in braces: every question is the same"),
        ({"messages": {"user": "{text}"}}, TSV, "task.messages.assistant"),
    ],
)
def test_conversations_that_cannot_be_made(task: dict[str, Any], source: dict[str, Any] | None, says: str) -> None:
    data = plain("instructions", task=task)
    if source is not None:
        data["data"]["source"] = source
    with pytest.raises(ConfigError) as caught:
        Recipe.parse(data, "r")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
