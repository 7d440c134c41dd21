"""The nearest tree that CTranslate2 can express: what another tree has beside it is refused by name.

CTranslate2 runs what its layers know (`include/ctranslate2/layers/`): one kind of activation and of norm placement for
all layers of a stack, LayerNorm with a bias or RMSNorm, positions added from a table or rotary.
"""

from __future__ import annotations

from typing import Any, cast

from sublayer import config
from sublayer.config.difference import differences
from sublayer.errors import CheckpointError
from sublayer.hub.family import Tree

Expressible = config.EncoderDecoder | config.DecoderOnly
PLACEMENTS: tuple[config.NormPlacement, ...] = ("pre", "post")
ALONE: tuple[config.NormPlacement, ...] = ("pre", "post", "sandwich", "parallel", "parallel-shared")
"""Those of a decoder without an encoder."""


def nearest(tree: Expressible) -> Expressible:
    """The same tree where CTranslate2 can express it, else one with other parts in the places that it cannot."""
    eps = tree.decoder.block.norm.eps
    norm = None if tree.embedding.norm is None else _norm(tree.embedding.norm, eps)
    embedding = tree.embedding.model_copy(update={"norm": norm, "width": None, "token_types": 0, "convolution": None})
    stacks = {name: _stack(stack, eps, tree, cross=cross) for name, (stack, cross) in tree.stacks.items()}
    return tree.model_copy(update={"embedding": embedding, **stacks})


def lacks(tree: Expressible) -> dict[str, tuple[Any, Any]]:
    """What CTranslate2 cannot express of a tree: by the path of a setting, what it is and what it would have to be."""
    found = differences(tree.plain(), nearest(tree).plain())
    # Of a part of another type only the type is told.
    others = {path.removesuffix("type") for path in found if path.endswith(".type")}
    return {
        path: pair
        for path, pair in found.items()
        if path.endswith(".type") or not any(path.startswith(other) for other in others)
    }


def refusal(tree: Tree | config.Recurrent, lacking: dict[str, tuple[Any, Any]] | None = None) -> CheckpointError:
    """What to raise for a model that cannot be expressed."""
    if not lacking:
        return CheckpointError(
            f"a model of the kind '{tree.kind}' is not exported for CTranslate2",
            "Export an encoder-decoder or decoder-only Transformer; encoders go to --format onnx.",
        )
    # Left out, a cross-attention is as the self-attention, whose norms of queries and keys CTranslate2 has only there.
    said = "; ".join(
        f"{path} is left out" if value is None and isinstance(wanted, dict) else f"{path} = {_toml(value)}"
        for path, (value, wanted) in lacking.items()
    )
    wanted = ", ".join(f"model.{path} = {_toml(value)}" for path, (_, value) in lacking.items())
    return CheckpointError(f"CTranslate2 cannot express this model: {said}", f"Train one with {wanted}.")


def _toml(value: Any) -> str:
    """A value as a recipe spells it."""
    if value is None:
        return '"none"'
    if isinstance(value, dict):
        settings = cast("dict[str, Any]", value).items()
        return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in settings if each is not None) + " }"
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)


def _stack(stack: config.Stack, eps: float, tree: Expressible, *, cross: bool) -> config.Stack:
    alone = isinstance(tree, config.DecoderOnly)
    position = _position(stack.position, alone=alone)
    usual = _block(stack.block, eps, stack.block, cross=cross, alone=alone)
    others = tuple(
        other.model_copy(update={"block": _block(other.block, eps, usual, cross=cross, alone=alone)})
        for other in stack.others
    )
    return stack.model_copy(update={"position": position, "block": usual, "others": others})


def _block(block: config.Block, eps: float, usual: config.Block, *, cross: bool, alone: bool) -> config.Block:
    """usual: of the stack, whose norm placement and activation all layers have."""
    known = ALONE if alone else PLACEMENTS
    attention = _attention(block.attention, eps)
    crossing = block.cross_attention
    if cross and (crossing is not None or attention.query_key_norm is not None):
        # There only the self-attentions apply the norms; those of the cross-attention would be read and forgotten.
        update = {"heads": attention.heads, "query_key_norm": None}
        crossing = _attention(block.cross, eps).model_copy(update=update)
    return block.model_copy(
        update={
            "attention": attention,
            "cross_attention": crossing,
            "feed_forward": _feed_forward(block.feed_forward, usual.feed_forward.activation),
            "norm": _norm(block.norm, eps),
            "attention_norm": True,
            "norm_placement": usual.norm_placement if usual.norm_placement in known else "pre",
            "position": None,
        }
    )


def _attention(attention: config.Attention, eps: float) -> config.Attention:
    norm = attention.query_key_norm
    return attention.model_copy(
        update={
            "window": None,
            "softcap": None,
            "query_key_norm": None if norm is None else _norm(norm, eps),
            "query_key_norm_over": "head",
        }
    )


def _feed_forward(part: config.FeedForward, activation: config.Activation) -> config.FeedForward:
    match part:
        case config.PositionWise() | config.Gated():
            return part.model_copy(update={"activation": activation})
        case config.Squared():
            return config.PositionWise(hidden=part.hidden, activation=activation, bias=part.bias)
        case config.MixtureOfExperts():
            return config.Gated(hidden=part.hidden, activation=activation)


def _norm(norm: config.Norm, eps: float) -> config.Norm:
    """One epsilon for all; without a bias a norm would be an RMSNorm there."""
    match norm:
        case config.LayerNorm():
            return config.LayerNorm(eps=eps)
        case config.RMSNorm():
            return norm.model_copy(update={"eps": eps})
        case config.ScaleNorm():
            return config.LayerNorm(eps=eps)


def _position(position: config.Position, *, alone: bool) -> config.Position:
    match position:
        case config.Sinusoidal() | config.NoPosition():
            return position
        case config.Learned():
            return config.Learned()
        case config.Rotary():
            known = config.Unscaled | config.LinearScaling | config.Llama3Scaling
            return (
                position
                if isinstance(position.scaling, known)
                else position.model_copy(update={"scaling": config.Unscaled()})
            )
        case config.Alibi() if alone:
            return position
        case _:
            return config.Sinusoidal()
