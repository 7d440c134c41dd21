"""Covering sets of the shapes that are one stack: decoder-only and encoder-only.

What the two share (the stack) is varied alike; each has its own ends (embedding and projection; kinds and head). They
also hold the parts that an encoder-decoder is seldom made of: parallel blocks, experts, caps, layers that differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from laws.models import DIM, POSITIONS, ROTARY_SCALINGS
from laws.pairwise import Row, pairwise
from sublayer import config

FEED_FORWARDS: Mapping[str, config.FeedForward] = {
    "relu": config.PositionWise(hidden=24, activation="relu"),
    "geglu-tanh-bias": config.Gated(hidden=20, activation="gelu_tanh", bias=True),
    "squared": config.Squared(hidden=24),
    "experts": config.MixtureOfExperts(experts=4, active=2, hidden=12),
    "one-expert": config.MixtureOfExperts(experts=3, active=1, hidden=12, normalize=False),
}
NORMS: Mapping[str, config.Norm] = {
    "layer": config.LayerNorm(),
    "layer-no-bias": config.LayerNorm(bias=False),
    "rms": config.RMSNorm(),
    "rms-plus-one": config.RMSNorm(plus_one=True),
    "scale": config.ScaleNorm(),
}
SCORES: Mapping[str, Mapping[str, Any]] = {"plain": {}, "scaled": {"scale": 0.3}, "capped": {"softcap": 2.0}}
QUERY_KEY_NORMS: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "each-head": {"query_key_norm": config.RMSNorm()},
    "all-heads": {"query_key_norm": config.LayerNorm(), "query_key_norm_over": "all"},
}
OTHER_POSITIONS: Mapping[str, config.Rotary | config.NoPosition] = {
    "no-position": config.NoPosition(),
    **{f"rotary-{name}": config.Rotary(base=30.0, scaling=scaling) for name, scaling in ROTARY_SCALINGS.items()},
}
"""What the second layer has instead of the stack's."""

STACK: Mapping[str, Sequence[Any]] = {
    "position": (
        "sinusoidal",
        "learned",
        "rotary",
        "rotary-interleaved-half",
        "rotary-yarn",
        "alibi",
        "relative",
        "kerple",
        "none",
    ),
    "feed_forward": tuple(FEED_FORWARDS),
    "norm": tuple(NORMS),
    "norm_placement": ("post", "pre", "sandwich", "output", "parallel", "parallel-shared"),
    "kv_heads": (None, 2, 1),
    "head_dim": (None, 8),
    "window": (None, 1, 3),
    "scores": tuple(SCORES),
    "query_key_norm": tuple(QUERY_KEY_NORMS),
    "bias": (True, False),
    "others": ("none", "window", "feed-forward", *OTHER_POSITIONS),
    "layers": (2, 3),
}
DECODER: Mapping[str, Sequence[Any]] = {
    **STACK,
    "embedding": ("tied", "tied-scaled-normed", "untied", "narrow"),
    "logits": ("plain", "biased", "capped"),
}
ENCODER: Mapping[str, Sequence[Any]] = {
    **STACK,
    "embedding": ("plain", "kinds", "kinds-normed", "narrow", "convolved", "narrow-convolved"),
    "head": (
        "none",
        "masked",
        "masked-untied",
        "class",
        "pooler",
        "mean",
        "max",
        "last",
        "tags",
        "vector",
        "unit-vector",
    ),
}
ENDS = ("embedding", "logits", "head")
INDEPENDENT = {
    # What sees one position at a time knows nothing of positions, windows and heads; layers that differ are tried with
    # what they share; and the ends know nothing of the stack, so they are tried with one choice of it.
    *(frozenset(("position", other)) for other in ("feed_forward", "norm", "norm_placement", "others", "bias")),
    *(frozenset(("others", other)) for other in ("feed_forward", "norm", "norm_placement", "head_dim", "layers")),
    *(frozenset((end, other)) for end in ENDS for other in STACK if other != "layers"),
    frozenset(("embedding", "head")),
}
EMBEDDINGS: Mapping[str, Mapping[str, Any]] = {
    "tied": {},
    "tied-scaled-normed": {"scale": True, "norm": config.LayerNorm()},
    "untied": {},
    "narrow": {"width": 12},
    "plain": {},
    "kinds": {"token_types": 3},
    "kinds-normed": {"token_types": 2, "norm": config.RMSNorm()},
    "convolved": {"convolution": config.Convolution(width=3)},
    "narrow-convolved": {
        "width": 12,
        "convolution": config.Convolution(width=5, others=(2,), activation="gelu", residual=False),
    },
}
LABELS = ("good", "bad", "neither")
HEADS: Mapping[str, Mapping[str, Any]] = {
    "none": {"head": config.NoHead()},
    "masked": {"head": config.MaskedLanguage()},
    "masked-untied": {"head": config.MaskedLanguage(tied=False, output_bias=False)},
    "class": {"head": config.Classification(labels=LABELS)},
    "pooler": {"head": config.Classification(labels=LABELS, activation=None), "pooler": True},
    "mean": {"head": config.Classification(labels=LABELS, pooling="mean", norm=config.LayerNorm())},
    "max": {"head": config.Classification(labels=LABELS, pooling="max")},
    "last": {"head": config.Classification(labels=LABELS, pooling="last")},
    "tags": {"head": config.Tagging(labels=LABELS, activation="gelu")},
    "vector": {"head": config.SentenceEmbedding(pooling="class", normalize=False)},
    "unit-vector": {"head": config.SentenceEmbedding(pooling="mean")},
}


def stack_of(row: Row) -> config.Stack:
    attention = config.Attention(
        heads=4,
        kv_heads=row["kv_heads"],
        head_dim=row["head_dim"],
        window=row["window"],
        bias=row["bias"],
        **SCORES[row["scores"]],
        **QUERY_KEY_NORMS[row["query_key_norm"]],
    )
    block = config.Block(
        attention=attention,
        feed_forward=FEED_FORWARDS[row["feed_forward"]],
        norm=NORMS[row["norm"]],
        norm_placement=row["norm_placement"],
    )
    other = other_block(row["others"], block)
    return config.Stack(
        layers=row["layers"],
        block=block,
        others=() if other is None else (config.OtherLayers(layers=(1,), block=other),),
        position=POSITIONS[row["position"]],
    )


def other_block(how: str, block: config.Block) -> config.Block | None:
    """The second layer's, where it is another."""
    match how:
        case "none":
            return None
        case "window":
            attention = block.attention.model_copy(update={"window": 3 if block.attention.window is None else None})
            return block.model_copy(update={"attention": attention})
        case "feed-forward":
            return block.model_copy(update={"feed_forward": config.Gated(hidden=10)})
        case _:
            return block.model_copy(update={"position": OTHER_POSITIONS[how]})


def decoder_config(row: Row) -> config.DecoderOnly:
    return config.DecoderOnly(
        dim=DIM,
        vocab_size=17,
        max_length=20,
        embedding=config.Embedding(**{"scale": False, **EMBEDDINGS[row["embedding"]]}),
        tied=row["embedding"] not in ("untied", "narrow"),
        output_bias=row["logits"] == "biased",
        logit_softcap=3.0 if row["logits"] == "capped" else None,
        decoder=stack_of(row),
    )


def encoder_config(row: Row) -> config.EncoderOnly:
    own: Mapping[str, Any] = HEADS[row["head"]]
    if row["embedding"].startswith("narrow") and row["head"] == "masked":
        own = HEADS["masked-untied"]  # a table of another width cannot be tied
    return config.EncoderOnly(
        dim=DIM,
        vocab_size=17,
        max_length=12,
        embedding=config.Embedding(**{"scale": False, **EMBEDDINGS[row["embedding"]]}),
        encoder=stack_of(row),
        **own,
    )


DECODER_ROWS = pairwise(DECODER, INDEPENDENT)
ENCODER_ROWS = pairwise(ENCODER, INDEPENDENT)
DECODER_CONFIGS = [decoder_config(row) for row in DECODER_ROWS]
ENCODER_CONFIGS = [encoder_config(row) for row in ENCODER_ROWS]

PLAIN: Row = {
    "position": "rotary",
    "feed_forward": "geglu-tanh-bias",
    "norm": "layer",
    "norm_placement": "pre",
    "kv_heads": 2,
    "head_dim": None,
    "window": None,
    "scores": "plain",
    "query_key_norm": "none",
    "bias": True,
    "others": "none",
    "layers": 2,
    "embedding": "plain",
    "logits": "plain",
    "head": "masked",
}
"""The plainest choices, of either shape."""
