"""Small language models of every kind that a checkpoint may be, with weights large enough that an error shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from sublayer import config
from sublayer.models import DecoderOnly
from sublayer.nn.attention import SelfAttention
from sublayer.nn.normalization import LayerNorm, RMSNorm

VOCABULARY, LONGEST = 29, 24


def tree(
    *,
    layers: int = 2,
    attention: Mapping[str, Any] | None = None,
    feed_forward: config.FeedForward | None = None,
    position: config.Position | None = None,
    others: tuple[config.OtherLayers, ...] = (),
    model: Mapping[str, Any] | None = None,
    **block: Any,
) -> config.DecoderOnly:
    usual = config.Block(
        attention=config.Attention(**{"heads": 4, **(attention or {})}),
        feed_forward=feed_forward or config.Gated(hidden=20),
        **{"norm": config.RMSNorm(), "norm_placement": "pre", **block},
    )
    return config.DecoderOnly(
        **{"dim": 16, "vocab_size": VOCABULARY, "max_length": LONGEST, **(model or {})},
        decoder=config.Stack(layers=layers, block=usual, others=others, position=position or config.Rotary(base=100.0)),
    )


def differing(usual: config.DecoderOnly, *layers: int, **attention: Any) -> config.DecoderOnly:
    """With another attention in some layers, and there other positions if `position` is among what differs."""
    position = attention.pop("position", None)
    block = usual.decoder.block
    other = block.model_copy(update={"attention": block.attention.model_copy(update=attention), "position": position})
    stack = usual.decoder.model_copy(update={"others": (config.OtherLayers(layers=layers, block=other),)})
    return usual.model_copy(update={"decoder": stack})


PLUS_ONE = config.RMSNorm(plus_one=True)
EXPERTS = config.MixtureOfExperts(experts=5, active=2, hidden=12)
SCALED = {"embedding": config.Embedding(scale=True)}

TREES: Mapping[str, config.DecoderOnly] = {
    "gpt2": tree(
        feed_forward=config.PositionWise(hidden=24, activation="gelu_tanh"),
        norm=config.LayerNorm(),
        position=config.Learned(),
    ),
    "opt": tree(
        feed_forward=config.PositionWise(hidden=24),
        norm=config.LayerNorm(),
        position=config.Learned(offset=2),
        model={"embedding": config.Embedding(scale=False, width=12), "tied": False},
    ),
    "llama": tree(attention={"kv_heads": 2, "bias": False}),
    "mistral": tree(attention={"kv_heads": 2, "bias": False, "window": 3}),
    "qwen2": differing(tree(layers=3, attention={"kv_heads": 2, "output_bias": False}), 1, 2, window=4),
    "qwen3": tree(attention={"bias": False, "query_key_norm": config.RMSNorm(), "head_dim": 6}),
    "gemma": tree(
        feed_forward=config.Gated(hidden=20, activation="gelu_tanh"),
        attention={"kv_heads": 1, "bias": False},
        norm=PLUS_ONE,
        model=SCALED,
    ),
    "gemma2": differing(
        tree(
            layers=3,
            norm_placement="sandwich",
            norm=PLUS_ONE,
            attention={"kv_heads": 2, "softcap": 2.0, "scale": 0.3},
            model={**SCALED, "logit_softcap": 3.0},
        ),
        0,
        2,
        window=3,
    ),
    "gemma3": differing(
        tree(layers=3, norm_placement="sandwich", norm=PLUS_ONE, attention={"kv_heads": 2, "query_key_norm": PLUS_ONE}),
        0,
        1,
        window=3,
        position=config.Rotary(base=30.0),
    ),
    "olmo2": tree(
        norm_placement="output",
        attention={"kv_heads": 2, "query_key_norm": config.RMSNorm(), "query_key_norm_over": "all"},
    ),
    "olmo3": differing(
        tree(
            layers=4,
            norm_placement="output",
            attention={"query_key_norm": config.RMSNorm(), "query_key_norm_over": "all"},
            position=config.Rotary(base=100.0, scaling=config.YarnScaling(factor=4.0, original_length=8)),
        ),
        0,
        1,
        2,
        window=3,
        position=config.Rotary(base=100.0),
    ),
    "glm4": tree(
        norm_placement="sandwich",
        attention={"kv_heads": 2, "output_bias": False},
        position=config.Rotary(base=100.0, fraction=0.5, layout="interleaved"),
    ),
    "gpt-j": tree(
        norm_placement="parallel-shared",
        norm=config.LayerNorm(),
        feed_forward=config.PositionWise(hidden=24, activation="gelu"),
        position=config.Rotary(base=100.0, fraction=0.5, layout="interleaved"),
        model={"tied": False, "output_bias": True},
    ),
    "gpt-neox": tree(
        norm_placement="parallel",
        norm=config.LayerNorm(),
        feed_forward=config.PositionWise(hidden=24, activation="gelu"),
        position=config.Rotary(base=100.0, fraction=0.5),
    ),
    "mixtral": tree(attention={"kv_heads": 2, "bias": False}, feed_forward=EXPERTS),
    "mixtral, weights as they are": tree(feed_forward=EXPERTS.model_copy(update={"normalize": False, "active": 1})),
    "bloom": tree(
        position=config.Alibi(),
        feed_forward=config.PositionWise(hidden=24, activation="tanh"),
        model={"embedding": config.Embedding(scale=False, norm=config.LayerNorm())},
    ),
    "relative, windows, caps": differing(
        tree(position=config.RelativeBias(buckets=8, max_distance=6), attention={"kv_heads": 2, "softcap": 2.0}),
        1,
        window=3,
    ),
    "no positions in some": differing(tree(layers=3), 1, position=config.NoPosition()),
    "sinusoidal, post": tree(position=config.Sinusoidal(), norm_placement="post", model=SCALED),
}


def build(c: config.DecoderOnly, seed: int = 1) -> DecoderOnly:
    """A model in float32 with all its weights drawn anew, large: small ones hide errors."""
    model = DecoderOnly(c).eval()
    draw = torch.Generator().manual_seed(seed)
    norms = {id(module.weight) for module in model.modules() if isinstance(module, LayerNorm | RMSNorm)}
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=draw)
            if id(parameter) in norms:
                parameter.copy_(noise.sign() * (0.5 + torch.rand(parameter.shape, generator=draw)))
            elif id(parameter) in tables:
                parameter.copy_(noise / model.decoder.embedding.scale)
            elif parameter.dim() == 1:
                parameter.copy_(0.3 * noise)
            else:
                parameter.copy_(noise * parameter.shape[-1] ** -0.5)
        for module in model.modules():
            if isinstance(module, SelfAttention):
                # So that attention chooses.
                module.qkv.weight[: (module.head_count + module.groups) * module.width] *= 2.0
    return model
