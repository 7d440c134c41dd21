"""Named models: rows of a table. A recipe says `preset = "base"` and may override any part of the tree below it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from sublayer.config.model import (
    Attention,
    Block,
    Embedding,
    EncoderDecoder,
    PositionWise,
    Stack,
)
from sublayer.config.part import fitted
from sublayer.config.shape import Shape
from sublayer.errors import ConfigError, nearest


def _paper(*, dim: int, hidden: int, heads: int, dropout: float) -> EncoderDecoder:
    """The paper's architecture (section 3) at the sizes of its table 3: post-norm, sinusoidal, ReLU, all tied."""
    stack = Stack(
        layers=6,
        block=Block(
            attention=Attention(heads=heads), feed_forward=PositionWise(hidden=hidden), wiring="post", dropout=dropout
        ),
    )
    return EncoderDecoder(
        dim=dim,
        vocab_size=37_000,
        max_length=512,
        embedding=Embedding(dropout=dropout),
        encoder=stack,
        decoder=stack,
    )


def _small(*, dim: int, hidden: int, heads: int, layers: int) -> EncoderDecoder:
    """The same parts, pre-norm and without dropout: trains in minutes without care over the warm-up."""
    stack = Stack(
        layers=layers,
        block=Block(attention=Attention(heads=heads), feed_forward=PositionWise(hidden=hidden), wiring="pre"),
    )
    return EncoderDecoder(dim=dim, vocab_size=8_000, max_length=256, encoder=stack, decoder=stack)


PRESETS: Mapping[str, EncoderDecoder] = {
    # name          rows of table 3 of the paper
    "base": _paper(dim=512, hidden=2048, heads=8, dropout=0.1),
    "big": _paper(dim=1024, hidden=4096, heads=16, dropout=0.3),
    # name          for small text and ordinary machines
    "tiny": _small(dim=64, hidden=256, heads=4, layers=2),
    "mini": _small(dim=192, hidden=768, heads=4, layers=3),
    "small": _small(dim=256, hidden=1024, heads=4, layers=3),
}


def preset(name: str) -> EncoderDecoder:
    """The model of that name, or a `ConfigError` naming the nearest."""
    if name not in PRESETS:
        raise ConfigError(f"no preset is called '{name}'", nearest(name, PRESETS))
    return PRESETS[name]


def merged_with_preset(model: Mapping[str, Any]) -> dict[str, Any]:
    """`model` without its key `preset`, laid over that preset's tree, in the types that validation wants."""
    name = model["preset"]
    if not isinstance(name, str):
        raise ConfigError(f"model.preset = {name!r} is not a name", "Write, say, preset = 'small'.")
    laid = merge(preset(name).plain(), {key: value for key, value in model.items() if key != "preset"})
    return fitted(laid, Shape(parts=(EncoderDecoder,)))


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, table by table; a table whose `type` changes is replaced whole."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            old, new = cast("Mapping[str, Any]", below), cast("Mapping[str, Any]", value)
            changed = "type" in new and new["type"] != old.get("type")
            merged[key] = dict(new) if changed else merge(old, new)
        else:
            merged[key] = value
    return merged
