"""The JSON schema accepts what loads, refuses what does not, and says what each key is."""

from __future__ import annotations

import re
import tomllib
from copy import deepcopy
from operator import ge, gt, le, lt
from typing import Any

import pytest

from config.fitting import fitted
from sublayer.config import KINDS, PRESETS, Attention, Recipe
from sublayer.config.descriptions import field_descriptions
from sublayer.config.load import dump_toml, recipes_folder, shipped_recipes
from sublayer.config.schema import recipe_schema

SCHEMA = recipe_schema()
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}
BOUNDS = {"minimum": ge, "exclusiveMinimum": gt, "maximum": le, "exclusiveMaximum": lt}
# Said for people and editors, and nothing to check.
REMARKS = {"$schema", "$defs", "title", "description", "default", "x-taplo"}


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether `value` is valid: the part of draft 2020-12 that our schema uses, and an error for any other word."""
    for word, wanted in schema.items():
        match word:
            case "$ref":
                good = fits(value, SCHEMA["$defs"][wanted.removeprefix("#/$defs/")])
            case "type":
                good = isinstance(value, TYPES[wanted]) and (wanted == "boolean" or not isinstance(value, bool))
            case "const":
                good = value == wanted
            case "enum":
                good = value in wanted
            case "properties":
                good = not isinstance(value, dict) or all(
                    fits(below, wanted[key]) for key, below in value.items() if key in wanted
                )
            case "additionalProperties":
                assert wanted is False
                good = not isinstance(value, dict) or value.keys() <= schema["properties"].keys()
            case "required":
                good = not isinstance(value, dict) or value.keys() >= set(wanted)
            case "oneOf":
                good = sum(fits(value, choice) for choice in wanted) == 1
            case "anyOf":
                good = any(fits(value, choice) for choice in wanted)
            case "if":
                good = fits(value, schema["then"] if fits(value, wanted) else schema["else"])
            case "then" | "else":
                good = True
            case "prefixItems":
                good = not isinstance(value, list) or all(map(fits, value, wanted))
            case "items":
                good = not isinstance(value, list) or all(fits(item, wanted) for item in value)
            case "minItems" | "maxItems":
                good = not isinstance(value, list) or (len(value) >= wanted if "min" in word else len(value) <= wanted)
            case "pattern":
                good = not isinstance(value, str) or re.search(wanted, value) is not None
            case "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum":
                good = not isinstance(value, int | float) or BOUNDS[word](value, wanted)
            case _:
                assert word in REMARKS, f"a word that this check does not know: {word}"
                good = True
        if not good:
            return False
    return True


BLOCK = {"attention": {"heads": 4}, "feed_forward": {"type": "position-wise", "hidden": 8}, "norm_placement": "pre"}
TSV = {"type": "tsv", "path": "pairs.tsv"}
SHORT: dict[str, Any] = {
    "name": "x",
    "data": {"source": {"type": "corpus", "name": "a"}},
    "model": {"preset": "tiny"},
    "training": {"steps": 3},
}


def changed(path: str, value: Any, base: dict[str, Any] = SHORT) -> dict[str, Any]:
    data = deepcopy(base)
    *keys, last = path.split(".")
    table = data
    for key in keys:
        table = table.setdefault(key, {})
    table[last] = deepcopy(value)
    return data


def test_dialect_and_title() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert SCHEMA["title"] == "sublayer recipe"


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_valid(name: str) -> None:
    assert fits(tomllib.loads((recipes_folder() / f"{name}.toml").read_text(encoding="utf-8")), SCHEMA)


@pytest.mark.parametrize("name", PRESETS)
def test_resolved_recipes_are_valid(name: str) -> None:
    data = changed("model.preset", name) | {"training": {"steps": 3, "clip_norm": "none"}}
    recipe = Recipe.parse(fitted(data), "r")
    assert fits(tomllib.loads(dump_toml(recipe)), SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.encoder", {"position": {"base": 500}}),
        ("model.encoder", {"position": {"type": "rotary", "scaling": {"type": "linear", "factor": 2}}}),
        ("model.decoder", {"block": {"attention": {"kv_heads": 2, "query_key_norm": {"type": "rms"}}}}),
        ("model.decoder", {"block": {"attention": {"window": "none"}}}),
        ("training.clip_norm", "none"),
        ("training.schedule", {"type": "cosine", "warmup": 5}),
        ("training.optimizer", {"type": "muon", "others": {"betas": [0.9, 0.95]}}),
        ("tokenizer", {"type": "unigram"}),
        ("tokenizer", {"vocab_size": 500, "normalization": {"lowercase": True}}),
        ("tokenizer", {"type": "words", "split": "whitespace", "vocab_size": "none", "min_frequency": 3}),
        ("tokenizer", {"type": "characters", "vocab_size": 20, "normalization": {"unicode": "none"}}),
        ("tokenizer", {"type": "bytes", "normalization": {"unicode": "NFKC", "strip_accents": True}}),
        ("data.split", {"type": "tail", "validation": 0.1}),
        ("data.split", {"type": "given", "validation": TSV, "test": TSV}),
        ("model", {"preset": "gpt2", "decoder": {"block": {"norm_placement": "parallel"}}}),
        ("model", {"preset": "gpt2", "kind": "decoder-only", "logit_softcap": 30}),
        ("model", {"preset": "bert-base", "head": {"type": "classification", "labels": ["a", "b"]}}),
        ("model", tomllib.loads(dump_toml(PRESETS["llama-15m"])) | {"logit_softcap": "none"}),
        ("model.decoder", {"others": [{"layers": [1], "block": {**BLOCK, "position": {"type": "rotary"}}}]}),
    ],
)
def test_valid(path: str, value: Any) -> None:
    data = fitted(changed(path, value))
    Recipe.parse(data, "r")
    assert fits(data, SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("trainning", {}),
        ("training.stpes", 3),
        ("training.steps", "5"),
        ("training.steps", 0),
        ("training.clip_norm", "some"),
        ("training.schedule", {"warmup": 5}),
        ("training.schedule", {"type": "cosin"}),
        ("training.schedule", {"type": "cosine", "warmpu": 5}),
        ("training.optimizer", {"type": "adam", "betas": [0.9]}),
        ("tokenizer", {"type": "word"}),
        ("tokenizer", {"type": "bytes", "vocab_size": 300}),
        ("tokenizer", {"vocab_size": 299}),
        ("tokenizer", {"min_frequency": 2}),
        ("tokenizer", {"type": "characters", "normalization": {"unicode": "NFX"}}),
        ("data.split", {"type": "tail", "test": 1.0}),
        ("name", "a b"),
        ("model.preset", "tinny"),
        ("model.layers", 3),
        ("model.encoder", {"layrs": 3}),
        ("model.encoder", {"position": {"type": "rotery"}}),
        ("model.encoder", {"block": {"attention": {"heads": "4"}}}),
        ("model", {"dim": 64}),
        ("model", {}),
        ("model", {"kind": "decoder-only"}),
        ("model", {"kind": "decoder", "dim": 64}),
        ("model", {"preset": "gpt2", "kind": "encoder-only"}),
        ("model", {"preset": "gpt2", "encoder": {"layers": 2}}),
        ("model", {"preset": "bert-base", "head": {"type": "classifier"}}),
        ("model", {key: value for key, value in tomllib.loads(dump_toml(PRESETS["gpt2"])).items() if key != "kind"}),
        ("model.decoder", {"others": [{"layers": ["1"], "block": BLOCK}]}),
    ],
)
def test_invalid(path: str, value: Any) -> None:
    data = fitted(changed(path, value))
    with pytest.raises(ValueError, match="r: "):
        Recipe.parse(data, "r")
    assert not fits(data, SCHEMA)


def test_without_a_preset_the_models_keys_are_required() -> None:
    assert SCHEMA["$defs"]["EncoderDecoder"]["required"] == ["dim", "encoder", "decoder"]
    assert SCHEMA["$defs"]["EncoderDecoderOverPreset"]["required"] == ["preset"]
    model = SCHEMA["else"]["properties"]["model"]
    assert model["if"] == {"required": ["preset"]}
    assert not fits({"dim": 64}, model)
    assert not fits({"kind": "decoder-only", "dim": 64}, model)


def test_below_a_preset_only_the_keys_of_its_kind_are_offered() -> None:
    for kind, shape in KINDS.items():
        over = SCHEMA["$defs"][f"{shape.__name__}OverPreset"]["properties"]
        assert over["preset"]["enum"] == [name for name, tree in PRESETS.items() if tree.kind == kind]
        assert over.keys() == {"preset", *shape.model_fields}


def test_every_table_refuses_unknown_keys() -> None:
    tables = [part for part in SCHEMA["$defs"].values() if part["type"] == "object"]
    assert len(tables) == len(SCHEMA["$defs"])
    assert all(table["additionalProperties"] is False for table in [SCHEMA, *tables])


def test_parts_presets_and_keys_are_described() -> None:
    attention = SCHEMA["$defs"]["Attention"]
    assert attention["description"].startswith("Multi-head attention (section 3.2.2).")
    assert attention["properties"]["heads"]["description"] == "query heads."
    assert "minutes" in SCHEMA["$defs"]["Training"]["properties"]["minutes"]["title"].lower()
    preset = SCHEMA["properties"]["model"]["properties"]["preset"]
    assert preset["enum"] == list(PRESETS)
    assert "base: encoder-decoder, 6 + 6 layers, 512 wide, 8 heads, 63.1 million parameters" in preset["description"]
    assert all(part["description"] for part in SCHEMA["$defs"].values())


def test_descriptions_are_read_from_docstrings() -> None:
    doc = "Head: not a field.\n\n    heads, window: two\n    lines. `bias`: a ratio 1:2.\n\n    More."
    found = field_descriptions(doc, Attention.model_fields)
    assert found == {"heads": "two lines.", "window": "two lines.", "bias": "a ratio 1:2."}
