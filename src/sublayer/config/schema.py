"""The JSON schema of a recipe file, so that an editor completes and checks it."""

from __future__ import annotations

from typing import Any, cast

from pydantic import BaseModel

from sublayer.config import model as tree
from sublayer.config.cost import total_parameters
from sublayer.config.descriptions import field_descriptions
from sublayer.config.part import UNSET
from sublayer.config.presets import PRESETS
from sublayer.config.recipe import Checkpoint, Recipe
from sublayer.config.shape import field_shape
from sublayer.config.tokenizer import Subwords

DIALECT = "https://json-schema.org/draft/2020-12/schema"
OVER_PRESET = "OverPreset"
OF_CELLS = "OfCells"
RECURRENT = (tree.RecurrentEncoderDecoder, tree.RecurrentDecoderOnly)
REFERENCE = "#/$defs/"


def recipe_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a recipe file.

    It differs from the tree's own schema where a file does: `model` may name a preset, and below one no key is
    required; an unset value is the word "none", since TOML has no null; a part with variants must say its `type`, and
    a model without a preset its `kind`. What only the whole tree shows (that heads divide the width, say) is left to
    loading.
    """
    schema = cast("dict[str, Any]", _as_toml(Recipe.model_json_schema()))
    parts = schema["$defs"]
    for part in _reachable(Recipe):
        _describe(schema if part is Recipe else parts[part.__name__], part)
    below_preset = {part.__name__ for shape in tree.KINDS.values() for part in _reachable(shape)}
    parts |= {shape.__name__ + OF_CELLS: _of_cells(parts[shape.__name__]) for shape in RECURRENT}
    parts |= {name + OVER_PRESET: _relaxed(parts[name], below_preset) for name in sorted(below_preset)}
    for kind, shape in tree.KINDS.items():
        over = parts[shape.__name__ + OVER_PRESET]
        over["properties"] = {"preset": _preset(kind), **over["properties"]}
        over["required"] = ["preset"]
    schema["properties"]["model"] = {
        "description": "The model: a preset with what is to be another, or the whole tree of one of the three shapes.",
        "type": "object",
        # Stated here too, so that an editor offers them in a table that is still empty.
        "properties": {"preset": _preset(), "kind": {"enum": [*tree.KINDS, *tree.CELLS]}},
    }
    # Without a type it is byte-level BPE, or another model.
    said = {"required": ["type"]}
    for name, usual in (("tokenizer", Subwords), ("start", Checkpoint)):
        told = {"$ref": REFERENCE + usual.__name__}
        schema["properties"][name] = {"if": said, "then": schema["properties"][name], "else": told}
    # Over another model's tree nothing is required, and what may stand there goes by that model's shape.
    schema["required"].remove("model")
    model = {"properties": {"type": {"const": "checkpoint"}}}
    schema |= {
        "if": {"required": ["start"], "properties": {"start": model}},
        "then": {"properties": {"model": {"type": "object"}}},
        "else": {"required": ["model"], "properties": {"model": _whole_model()}},
    }
    return {"$schema": DIALECT, **schema, "title": "sublayer recipe"}


def _as_toml(node: Any) -> Any:
    """pydantic's schema as of a TOML file: no null, and a variant's type required where there is a choice."""
    if isinstance(node, list):
        return [_as_toml(item) for item in cast("list[Any]", node)]
    if not isinstance(node, dict):
        return node
    table = cast("dict[str, Any]", node)
    if table.get("type") == "null":
        return {"const": UNSET}
    kept = {key: _as_toml(value) for key, value in table.items() if value is not None}
    # OpenAPI's keyword, unknown to JSON schema: what it says is said by each variant's constant `type` (or `kind`).
    if "discriminator" in kept:
        kept["required"] = [kept.pop("discriminator")["propertyName"]]
    return kept


def _reachable(part: type[BaseModel]) -> list[type[BaseModel]]:
    """`part` and every node that can stand somewhere below it."""
    found: list[type[BaseModel]] = []
    waiting = [part]
    while waiting:
        here = waiting.pop()
        if here not in found:
            found.append(here)
            waiting += [below for name in here.model_fields for below in field_shape(here, name).parts]
    return found


def _describe(schema: dict[str, Any], part: type[BaseModel]) -> None:
    """Give every field what the docstring of `part` says of it."""
    for name, text in field_descriptions(part.__doc__ or "", part.model_fields).items():
        schema["properties"][name].setdefault("description", text)


def _relaxed(node: Any, names: set[str]) -> Any:
    """A part's schema as it is over a preset: nothing is required, and neither is anything in the parts below."""
    if isinstance(node, list):
        return [_relaxed(item, names) for item in cast("list[Any]", node)]
    if not isinstance(node, dict):
        return node
    table = cast("dict[str, Any]", node)
    result: dict[str, Any] = {}
    for key, value in table.items():
        if key == "$ref" and value.removeprefix(REFERENCE) in names:
            result[key] = value + OVER_PRESET
        elif key == "oneOf":
            # Without a type, more than one variant may fit.
            result["anyOf"] = _relaxed(value, names)
        # What is left out is the preset's, not the default.
        elif key not in ("required", "default"):
            result[key] = _relaxed(value, names)
    return result


def _whole_model() -> dict[str, Any]:
    """The schema of a model that stands by itself or over a preset; without a `kind` it is an encoder-decoder."""
    alone: dict[str, Any] = {"$ref": REFERENCE + tree.EncoderDecoder.__name__}
    for kind, shape in tree.KINDS.items():
        if shape is not tree.EncoderDecoder:
            said = {"required": ["kind"], "properties": {"kind": {"const": kind}}}
            alone = {"if": said, "then": {"$ref": REFERENCE + shape.__name__}, "else": alone}
    # A cell's name is short for a recurrent network of such cells; which of the two follows from the task.
    said = {"required": ["kind"], "properties": {"kind": {"enum": list(tree.CELLS)}}}
    several = [{"$ref": REFERENCE + shape.__name__ + OF_CELLS} for shape in RECURRENT]
    alone = {"if": said, "then": {"anyOf": several}, "else": alone}
    return {
        "if": {"required": ["preset"]},
        # Which shape it is follows from the preset's name.
        "then": {"oneOf": [{"$ref": REFERENCE + shape.__name__ + OVER_PRESET} for shape in tree.KINDS.values()]},
        "else": alone,
    }


def _of_cells(schema: dict[str, Any]) -> dict[str, Any]:
    """A recurrent shape as it is written with a cell's name for its kind."""
    rest = {name: field for name, field in schema["properties"].items() if name != "cell"}
    return {**schema, "properties": {**rest, "kind": {"enum": list(tree.CELLS)}}}


def _preset(kind: str | None = None) -> dict[str, Any]:
    """The presets of a kind, or all of them."""
    said = {name: _summary(model) for name, model in PRESETS.items() if kind in (None, model.kind)}
    told = "\n".join(f"{name}: {summary}" for name, summary in said.items())
    return {
        "description": f"A named model; keys beside and below it override its parts.\n{told}",
        "enum": list(said),
        # Where the TOML editors (taplo, Even Better TOML) look for the description of each word.
        "x-taplo": {"docs": {"enumValues": list(said.values())}},
    }


def _summary(model: tree.Model) -> str:
    if isinstance(model, tree.Recurrent):
        return f"{model.kind}, {model.cell}, {model.decoder.layers} layers, {model.dim} wide, {_size(model)}"
    stacks = [stack for stack, _ in model.stacks.values()]
    layers, heads = " + ".join(str(stack.layers) for stack in stacks), stacks[-1].block.attention.heads
    return f"{model.kind}, {layers} layers, {model.dim} wide, {heads} heads, {_size(model)}"


def _size(model: tree.Model) -> str:
    return f"{total_parameters(model) / 1e6:.1f} million parameters with a vocabulary of {model.vocab_size:,}"
