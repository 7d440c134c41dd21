"""A bad tree is reported whole, on one line, at the paths that the user wrote."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from config.fitting import fitted
from sublayer.config import Attention, EncoderDecoder, Recipe, Rotary
from sublayer.errors import ConfigError

GOOD: dict[str, Any] = {
    "name": "x",
    "data": {"source": {"type": "corpus", "name": "a"}},
    "model": {"preset": "tiny"},
    "training": {"steps": 3},
}


def problems(changes: dict[str, Any], base: dict[str, Any] = GOOD) -> list[str]:
    """What is reported once `changes` (dotted keys) are made to a good recipe."""
    data = deepcopy(base)
    for path, value in changes.items():
        *keys, last = path.split(".")
        table = data
        for key in keys:
            table = table.setdefault(key, {})
        table[last] = value
    data = fitted(data)
    with pytest.raises(ConfigError) as caught:
        Recipe.parse(data, "r.toml")
    message = str(caught.value)
    assert message.startswith("r.toml: ")
    assert "\n" not in message
    return [message.removeprefix("r.toml: ")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training.stpes": 5}, "training.stpes: unknown key; did you mean 'steps'?"),
        ({"trainning": {}}, "trainning: unknown key; did you mean 'training'?"),
        (
            {"training.schedule": {"type": "cosine", "warmpu": 1}},
            "training.schedule.warmpu: unknown key; did you mean 'warmup'?",
        ),
        (
            {"training.schedule": {"type": "cosine", "cosine": 1}},
            "training.schedule.cosine: unknown key; known: final, type, warmup",
        ),
        (
            {"training.optimizer": {"type": "muon", "others": {"type": "adamw", "bettas": [0, 0]}}},
            "training.optimizer.others.bettas: unknown key; did you mean 'betas'?",
        ),
        (
            {"model.decoder": {"position": {"type": "rotary", "scaling": {"type": "yarn", "facto": 2}}}},
            "model.decoder.position.scaling.factor: missing; model.decoder.position.scaling.original_length: missing; "
            "model.decoder.position.scaling.facto: unknown key; did you mean 'factor'?",
        ),
        (
            {"model.encoder": {"position": {"type": "rotery"}}},
            "model.encoder.position.type: unknown type 'rotery'; did you mean 'rotary'?",
        ),
        (
            {"training.schedule": {"warmup": 5}},
            "training.schedule.type: missing; known: cosine, inverse-sqrt, linear",
        ),
        ({"training.schedule": 5}, "training.schedule: should be a table (given: 5)"),
        ({"tokenizer.type": "unigrm"}, "tokenizer.type: unknown type 'unigrm'; did you mean 'unigram'?"),
        ({"training.steps": "5"}, "training.steps: should be a whole number (given: '5')"),
        ({"training.steps": 5.0}, "training.steps: should be a whole number (given: 5.0)"),
        ({"training.steps": True}, "training.steps: should be a whole number (given: True)"),
        ({"training.steps": 0}, "training.steps: should be more than 0 (given: 0)"),
        ({"training.label_smoothing": 1}, "training.label_smoothing: should be less than 1.0 (given: 1)"),
        ({"training.clip_norm": float("nan")}, "training.clip_norm: should be a finite number (given: nan)"),
        ({"training.clip_norm": float("inf")}, "training.clip_norm: should be a finite number (given: inf)"),
        ({"training.compile": 1}, "training.compile: should be true or false (given: 1)"),
        ({"training.optimizer": {"type": "adam", "betas": [0.9]}}, "training.optimizer.betas.1: missing"),
        (
            {"training.optimizer": {"type": "adam", "betas": [0.9, 0.9, 0.9]}},
            "training.optimizer.betas: should have 2 values, not 3",
        ),
        (
            {"training.optimizer": {"type": "adam", "betas": [0.9, 2]}},
            "training.optimizer.betas.1: should be less than 1.0 (given: 2)",
        ),
        ({"name": 5}, "name: should be a string (given: 5)"),
        ({"name": "a b"}, "name: should match ^[A-Za-z0-9][A-Za-z0-9._-]*$ (given: 'a b')"),
        ({"decoding": "x" * 99}, f"decoding: should be a table (given: '{'x' * 56}...)"),
        ({"training.minutes": 5}, "training: set exactly one of training.steps and training.minutes"),
        (
            {"model.encoder": {"block": {"attention": {"kv_heads": 3}}}},
            "model.encoder.block.attention: heads = 4 is not a multiple of kv_heads = 3",
        ),
        ({"data.max_length": 999}, "data.max_length = 999 is more than model.max_length = 256"),
        (
            {"training.optimizer": {"type": "muon", "hidden_block": 100}},
            "model.encoder.block.feed_forward.hidden = 256 is not a multiple of training.optimizer.hidden_block = 100",
        ),
        ({"model": {"dim": 8}}, "model.encoder: missing; model.decoder: missing"),
        ({"model": {"kind": "decoder"}}, "model.kind: unknown kind 'decoder'; did you mean 'decoder-only'?"),
        (
            {"model": {"kind": "decoder-only", "dim": 8, "encoder": {}}},
            "model.decoder: missing; model.encoder: unknown key; did you mean 'decoder'?",
        ),
        (
            {"model": {"preset": "gpt2", "kind": "encoder-only"}},
            "model.kind: 'encoder-only' is not the kind of preset 'gpt2', which is 'decoder-only'; "
            "task 'translation' trains model.kind = 'encoder-decoder', not 'decoder-only'",
        ),
        (
            {"model": {"preset": "gpt2", "decoder": {"others": [{"layers": [1], "block": {"atention": 1}}]}}},
            "model.decoder.others.0.block.attention: missing; model.decoder.others.0.block.feed_forward: missing; "
            "model.decoder.others.0.block.atention: unknown key; did you mean 'attention'?",
        ),
        (
            {"model": {"preset": "minilm", "head": {"type": "classification", "poling": "mean"}}},
            "model.head.poling: unknown key; did you mean 'pooling'?",
        ),
    ],
)
def test_one_problem(changes: dict[str, Any], message: str) -> None:
    assert problems(changes) == [message]


def test_every_problem_is_named_at_once() -> None:
    [message] = problems(
        {
            "training.stpes": 1,
            "training.steps": "5",
            "training.schedule": {"type": "cosine", "warmpu": 1},
            "model.encoder": {"layrs": 1, "position": {"type": "rotery"}},
            "decoding.beam": 0,
        }
    )
    assert message == (
        "model.encoder.position.type: unknown type 'rotery'; did you mean 'rotary'?; "
        "model.encoder.layrs: unknown key; did you mean 'layers'?; "
        "training.steps: should be a whole number (given: '5'); "
        "training.schedule.warmpu: unknown key; did you mean 'warmup'?; "
        "training.stpes: unknown key; did you mean 'steps'?; "
        "decoding.beam: should be more than 0 (given: 0)"
    )


def test_missing_keys() -> None:
    with pytest.raises(ConfigError) as caught:
        EncoderDecoder.parse({"dim": 8, "encoder": {"block": {}}}, "config.json")
    assert str(caught.value) == (
        "config.json: encoder.layers: missing; encoder.block.attention: missing; "
        "encoder.block.feed_forward: missing; decoder: missing"
    )


def test_lists_stand_for_tuples_and_the_word_none_for_null() -> None:
    data = deepcopy(GOOD)
    data["training"] |= {"clip_norm": "none", "optimizer": {"type": "adam", "betas": [0, 0.5], "learning_rate": "none"}}
    data["model"]["encoder"] = {"position": {"type": "none"}}
    recipe = Recipe.parse(data, "r.toml")
    assert recipe.training.clip_norm is None
    assert recipe.training.optimizer.betas == (0, 0.5)  # type: ignore[union-attr]
    assert recipe.training.optimizer.learning_rate is None  # type: ignore[union-attr]
    assert recipe.model.encoder.position.type == "none"


def test_null_is_taken_from_json() -> None:
    assert Attention.parse({"heads": 4, "window": None}, "config.json") == Attention(heads=4)


def test_plain_data_gives_the_tree_back() -> None:
    recipe = Recipe.parse(GOOD, "r.toml")
    assert Recipe.parse(recipe.plain(), "again") == recipe


def test_a_node_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Rotary().base = 5.0  # type: ignore[misc]
