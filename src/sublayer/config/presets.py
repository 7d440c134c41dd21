"""Named models: rows of a table. A recipe says `preset = "base"` and may override any part of the tree below it."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, cast

from sublayer.config import model as tree
from sublayer.errors import ConfigError, named

__all__ = ["PRESETS", "preset"]


def _stack(
    layers: int,
    attention: tree.Attention,
    feed_forward: tree.FeedForward,
    *,
    norm: tree.Norm | None = None,
    placement: tree.NormPlacement = "pre",
    position: tree.Position | None = None,
    dropout: float = 0.0,
) -> tree.Stack:
    """Layers that are all alike; the paper's norm and positions where left out."""
    block = tree.Block(
        attention=attention,
        feed_forward=feed_forward,
        norm=norm or tree.LayerNorm(),
        norm_placement=placement,
        dropout=dropout,
    )
    return tree.Stack(layers=layers, block=block, position=position or tree.Sinusoidal())


# --- encoder-decoders ---------------------------------------------------------------------------------------------


def _paper(*, dim: int, hidden: int, heads: int, dropout: float) -> tree.EncoderDecoder:
    """The paper's architecture (section 3) at the sizes of its table 3: post-norm, sinusoidal, ReLU, all tied."""
    attention, feed_forward = tree.Attention(heads=heads), tree.PositionWise(hidden=hidden)
    stack = _stack(6, attention, feed_forward, placement="post", dropout=dropout)
    embedding = tree.Embedding(dropout=dropout)
    return tree.EncoderDecoder(
        dim=dim, vocab_size=37_000, max_length=512, embedding=embedding, encoder=stack, decoder=stack
    )


def _small(*, dim: int, hidden: int, heads: int, layers: int) -> tree.EncoderDecoder:
    """The same parts, pre-norm and without dropout: trains in minutes without care over the warm-up."""
    stack = _stack(layers, tree.Attention(heads=heads), tree.PositionWise(hidden=hidden))
    return tree.EncoderDecoder(dim=dim, vocab_size=8_000, max_length=256, encoder=stack, decoder=stack)


def _t5(*, dim: int, hidden: int, heads: int, head_dim: int, layers: int) -> tree.EncoderDecoder:
    """T5 (Raffel et al. 2020): pre-norm without biases or a scale on the scores, and relative biases for positions."""
    attention = tree.Attention(heads=heads, head_dim=head_dim, scale=1.0, bias=False, dropout=0.1)
    feed_forward = tree.PositionWise(hidden=hidden, bias=False, dropout=0.1)
    norm, position = tree.RMSNorm(eps=1e-6), tree.RelativeBias()
    stack = _stack(layers, attention, feed_forward, norm=norm, position=position, dropout=0.1)
    return tree.EncoderDecoder(
        dim=dim,
        vocab_size=32_128,
        max_length=512,
        embedding=tree.Embedding(scale=False, dropout=0.1),
        output_scale=dim**-0.5,
        encoder=stack,
        decoder=stack,
    )


# --- language models ----------------------------------------------------------------------------------------------


def _gpt2(*, dim: int, heads: int, layers: int) -> tree.DecoderOnly:
    """GPT-2 (Radford et al. 2019): pre-norm, learned positions, GELU."""
    attention = tree.Attention(heads=heads, dropout=0.1)
    feed_forward = tree.PositionWise(hidden=4 * dim, activation="gelu_tanh")
    return tree.DecoderOnly(
        dim=dim,
        vocab_size=50_257,
        max_length=1024,
        embedding=tree.Embedding(scale=False, dropout=0.1),
        decoder=_stack(layers, attention, feed_forward, position=tree.Learned(), dropout=0.1),
    )


def _llama(
    *,
    dim: int,
    hidden: int,
    heads: int,
    layers: int,
    vocab_size: int,
    max_length: int,
    kv_heads: int | None = None,
    base: float = 10_000.0,
    dropout: float = 0.0,
) -> tree.DecoderOnly:
    """Llama's parts (Touvron et al. 2023): pre-norm with RMSNorm, rotary positions, SwiGLU, no biases; here tied."""
    attention = tree.Attention(heads=heads, kv_heads=kv_heads, bias=False)
    norm, position = tree.RMSNorm(eps=1e-5), tree.Rotary(base=base)
    return tree.DecoderOnly(
        dim=dim,
        vocab_size=vocab_size,
        max_length=max_length,
        embedding=tree.Embedding(scale=False, dropout=dropout),
        decoder=_stack(layers, attention, tree.Gated(hidden=hidden), norm=norm, position=position, dropout=dropout),
    )


# --- encoders -----------------------------------------------------------------------------------------------------


def _bert(*, dim: int, hidden: int, heads: int, layers: int, head: tree.Head) -> tree.EncoderOnly:
    """BERT (Devlin et al. 2019): post-norm, learned positions, GELU, two kinds of token."""
    norm, position = tree.LayerNorm(eps=1e-12), tree.Learned()
    attention = tree.Attention(heads=heads, dropout=0.1)
    feed_forward = tree.PositionWise(hidden=hidden, activation="gelu")
    return tree.EncoderOnly(
        dim=dim,
        vocab_size=30_522,
        max_length=512,
        embedding=tree.Embedding(scale=False, token_types=2, norm=norm, dropout=0.1),
        encoder=_stack(layers, attention, feed_forward, norm=norm, placement="post", position=position, dropout=0.1),
        head=head,
    )


def _small_encoder(*, dim: int, hidden: int, heads: int, layers: int) -> tree.EncoderOnly:
    """Pre-norm and rotary, so that little text goes a long way: to be trained from nothing on an ordinary machine."""
    feed_forward = tree.PositionWise(hidden=hidden, activation="gelu")
    return tree.EncoderOnly(
        dim=dim,
        vocab_size=8_000,
        max_length=512,
        embedding=tree.Embedding(scale=False, dropout=0.1),
        encoder=_stack(layers, tree.Attention(heads=heads), feed_forward, position=tree.Rotary(), dropout=0.1),
    )


PRESETS: Mapping[str, tree.Model] = {
    # encoder-decoder     rows of table 3 of the paper
    "base": _paper(dim=512, hidden=2048, heads=8, dropout=0.1),
    "big": _paper(dim=1024, hidden=4096, heads=16, dropout=0.3),
    #                     for small text and ordinary machines
    "tiny": _small(dim=64, hidden=256, heads=4, layers=2),
    "mini": _small(dim=192, hidden=768, heads=4, layers=3),
    "small": _small(dim=256, hidden=1024, heads=4, layers=3),
    #                     sizes of published checkpoints
    "t5-small": _t5(dim=512, hidden=2048, heads=8, head_dim=64, layers=6),
    # decoder-only        sizes of published checkpoints
    "gpt2": _gpt2(dim=768, heads=12, layers=12),
    "llama-15m": _llama(dim=288, hidden=768, heads=6, layers=6, vocab_size=32_000, max_length=256),
    "smollm2-135m": _llama(
        dim=576, hidden=1536, heads=9, kv_heads=3, layers=30, vocab_size=49_152, max_length=8192, base=100_000.0
    ),
    #                     for a book's worth of text and ordinary machines
    "mini-lm": _llama(dim=256, hidden=704, heads=4, layers=4, vocab_size=8_000, max_length=512, dropout=0.1),
    # encoder-only        sizes of published checkpoints
    "bert-base": _bert(
        dim=768, hidden=3072, heads=12, layers=12, head=tree.MaskedLanguage(norm=tree.LayerNorm(eps=1e-12))
    ),
    "minilm": _bert(dim=384, hidden=1536, heads=12, layers=6, head=tree.SentenceEmbedding()),
    #                     for labels of your own and ordinary machines
    "mini-encoder": _small_encoder(dim=192, hidden=768, heads=4, layers=3),
}


def preset(name: str) -> tree.Model:
    """The model of that name, or a `ConfigError` naming the nearest."""
    return named(PRESETS, name, ConfigError, f"no preset is called '{name}'")


def with_preset(data: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    """A recipe's plain data with the preset's tree under its `model`, and what was wrong with the preset.

    A name that is nearly right is reported, and the rest is checked as though it had been right, so that a wrong name
    hides no other problem.
    """
    if not isinstance(data.get("model"), dict):
        return data, []
    model = dict(cast("dict[str, Any]", data["model"]))
    problems: list[str] = []
    if "preset" not in model:
        known = {key for shape in tree.KINDS.values() for key in shape.model_fields}
        unknown = [key for key in model if key not in known]
        meant = next((key for key in unknown if get_close_matches(key, ["preset"])), None)
        if meant is None:
            return data, []
        problems.append(f"model.{meant}: unknown key; did you mean 'preset'?")
        model["preset"] = model.pop(meant)
    name = model.pop("preset")
    if not isinstance(name, str):
        problems.append(f"model.preset: should be a string (given: {name!r})")
        name = "base"
    elif name not in PRESETS:
        near = get_close_matches(name, PRESETS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(PRESETS))}"
        problems.append(f"model.preset: no preset is called '{name}'; {hint}")
        name = near[0] if near else "base"
    base = PRESETS[name]
    kind = model.pop("kind", base.kind)
    if kind != base.kind:
        problems.append(f"model.kind: {kind!r} is not the kind of preset '{name}', which is '{base.kind}'")
    return {**data, "model": merge(base.plain(), model)}, problems


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
