"""A covering set of the encoder-decoders that the tree allows, and weights large enough that an error shows.

The shapes of one stack, and the parts that only they have, are in `one_stack`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from laws.pairwise import Row, pairwise
from sublayer import config
from sublayer.models import Model, build_model
from sublayer.nn.attention import CrossAttention, SelfAttention
from sublayer.nn.embedding import Embedding
from sublayer.nn.experts import MixtureOfExperts
from sublayer.nn.normalization import Norm, ScaleNorm
from sublayer.nn.positions import Position

DIM = 16
SHARP = 1.8  # how many times larger than their input queries and keys are made, so that attention chooses

ROTARY_SCALINGS = {
    "linear": config.LinearScaling(factor=2.0),
    "ntk": config.NtkScaling(factor=4.0),
    "yarn": config.YarnScaling(factor=4.0, original_length=8, beta_fast=2.0, beta_slow=0.5),
    "llama3": config.Llama3Scaling(factor=4.0, original_length=8),
}
POSITIONS: Mapping[str, config.Position] = {
    "sinusoidal": config.Sinusoidal(),
    "sinusoidal-halves": config.Sinusoidal(layout="halves"),
    "learned": config.Learned(),
    # A small base, so that even the slowest pair turns visibly within nine positions.
    "rotary": config.Rotary(base=100.0),
    "rotary-interleaved-half": config.Rotary(base=100.0, fraction=0.5, layout="interleaved"),
    **{f"rotary-{name}": config.Rotary(base=100.0, scaling=scaling) for name, scaling in ROTARY_SCALINGS.items()},
    "alibi": config.Alibi(),
    "relative": config.RelativeBias(buckets=8, max_distance=6),
    "kerple": config.Kerple(),
    "none": config.NoPosition(),
}
FEED_FORWARDS: Mapping[str, config.FeedForward] = {
    "relu": config.PositionWise(hidden=24, activation="relu"),
    "gelu-no-bias": config.PositionWise(hidden=24, activation="gelu", bias=False),
    "silu": config.PositionWise(hidden=24, activation="silu"),
    "swiglu": config.Gated(hidden=20, activation="silu"),
    "geglu-tanh-bias": config.Gated(hidden=20, activation="gelu_tanh", bias=True),
}
NORMS: Mapping[str, config.Norm] = {
    "layer": config.LayerNorm(),
    "layer-no-bias": config.LayerNorm(bias=False),
    "rms": config.RMSNorm(),
}
EMBEDDINGS: Mapping[str, config.Embedding] = {
    "scaled": config.Embedding(),
    "unscaled": config.Embedding(scale=False),
    "normed": config.Embedding(norm=config.LayerNorm()),
}

FACTORS: Mapping[str, Sequence[Any]] = {
    "encoder_position": tuple(POSITIONS),
    "decoder_position": tuple(POSITIONS),
    "feed_forward": tuple(FEED_FORWARDS),
    "norm": tuple(NORMS),
    "norm_placement": ("post", "pre", "sandwich"),
    "kv_heads": (None, 2, 1),
    "head_dim": (None, 8),
    "window": (None, 1, 3),
    "query_key_norm": (None, "layer", "rms"),
    "bias": (True, False),
    "cross_attention": ("same", "own"),
    "tied": ("all", "target", "none"),
    "embedding": tuple(EMBEDDINGS),
    "output_bias": (False, True),
    "layers": ((1, 2), (2, 1), (3, 2)),
}
INDEPENDENT = {
    # Positions of the two stacks never meet, and a feed-forward network sees one position at a time: covering these
    # pairs would take 144 configurations and show nothing.
    frozenset(("encoder_position", "decoder_position")),
    frozenset(("encoder_position", "feed_forward")),
    frozenset(("decoder_position", "feed_forward")),
}


def build_config(row: Row) -> config.EncoderDecoder:
    """The tree of one row: two stacks that share everything but their positions and depth."""
    query_key_norm = row["query_key_norm"]
    attention = config.Attention(
        heads=4,
        kv_heads=row["kv_heads"],
        head_dim=row["head_dim"],
        window=row["window"],
        query_key_norm=None if query_key_norm is None else NORMS[query_key_norm],
        bias=row["bias"],
    )
    own = config.Attention(heads=2, kv_heads=1, head_dim=5, bias=not row["bias"])

    def stack(layers: int, position: str, cross: config.Attention | None) -> config.Stack:
        return config.Stack(
            layers=layers,
            block=config.Block(
                attention=attention,
                cross_attention=cross,
                feed_forward=FEED_FORWARDS[row["feed_forward"]],
                norm=NORMS[row["norm"]],
                norm_placement=row["norm_placement"],
            ),
            position=POSITIONS[position],
        )

    return config.EncoderDecoder(
        dim=DIM,
        vocab_size=17,
        max_length=16,
        embedding=EMBEDDINGS[row["embedding"]],
        tied=row["tied"],
        output_bias=row["output_bias"],
        encoder=stack(row["layers"][0], row["encoder_position"], None),
        decoder=stack(row["layers"][1], row["decoder_position"], own if row["cross_attention"] == "own" else None),
    )


ROWS = pairwise(FACTORS, INDEPENDENT)
CONFIGS = [build_config(row) for row in ROWS]


def seed_of(index: int) -> int:
    """The seed of the weights of a configuration: its number, but for one whose weights then make 1e-5 of a rounding of
    1e-7, so that two right ways in float32 are farther apart than a law allows."""
    return {13: 113}.get(index, index)


def name_of(row: Row) -> str:
    """What the name of a test shows of a row."""
    return "-".join(
        str(row[name]) for name in ("encoder_position", "decoder_position", "norm_placement", "norm", "window")
    )


def redraw(model: nn.Module, seed: int) -> None:
    """Every parameter anew, at random and large: initial biases of 0 and norms of 1 would hide what forgets them.

    Matrices keep the size of what passes through them, so that activations stay finite, except those of queries and
    keys, so that attention stays between uniform and one-hot, which `test_laws` asserts.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(parameter: torch.Tensor, std: float) -> None:
        parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * std)

    embedded = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    with torch.no_grad():
        for module in model.modules():
            match module:
                case nn.Linear():
                    if id(module.weight) not in embedded:
                        normal(module.weight, module.in_features**-0.5)
                    if module.bias is not None:
                        normal(module.bias, 0.3)
                case Norm():
                    size = 0.5 + torch.rand(module.weight.shape, generator=generator, dtype=torch.float64)
                    sign = torch.randint(2, module.weight.shape, generator=generator) * 2 - 1
                    # The scale itself may be 1 + weight.
                    plus_one = getattr(module, "plus_one", False)
                    # Of what is divided by its length, not by its root mean square, sqrt(D) is the size that stays.
                    whole = module.dim**0.5 if isinstance(module, ScaleNorm) else 1.0
                    module.weight.copy_(whole * size * sign - (1.0 if plus_one else 0.0))
                    if module.bias is not None:
                        normal(module.bias, 0.3)
                case nn.Embedding():
                    pass  # by its owner, who knows by how much it will be multiplied
                case Embedding():
                    normal(module.tokens.weight, 1 / module.scale)
                    if module.types is not None:
                        normal(module.types.weight, 1 / module.scale)
                case MixtureOfExperts():
                    for matrices in (module.gate_up, module.down):
                        normal(matrices, matrices.shape[-1] ** -0.5)
                case Position():
                    for parameter in module.parameters():
                        normal(parameter, 1.0)
                case _:
                    assert not list(module.parameters(recurse=False)), f"{type(module).__name__} is not redrawn"
        for module in model.modules():
            match module:
                case SelfAttention():
                    module.qkv.weight[: (module.head_count + module.groups) * module.width] *= SHARP
                case CrossAttention():
                    module.query.weight *= SHARP
                    module.key_value.weight[: module.groups * module.width] *= SHARP
                case _:
                    continue
            if module.query_norm is not None:
                # A norm undoes what its input was multiplied by.
                module.query_norm.weight *= SHARP**2


def build(c: config.Model, *, dtype: torch.dtype = torch.float64, seed: int = 1) -> Model:
    """A model with redrawn weights, in `dtype`."""
    model = build_model(c).to(dtype).eval()
    redraw(model, seed)
    assert math.isfinite(sum(parameter.sum().item() for parameter in model.parameters()))
    return model
