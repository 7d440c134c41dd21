"""The attentions of a model, those of one kind together: the rows of every picture and table of heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sublayer import config
from sublayer.errors import InputError
from sublayer.models import DecoderOnly, EncoderDecoder, EncoderOnly
from sublayer.models import Transformer as Model


@dataclass(frozen=True)
class Group:
    """The attentions of one kind, a layer each.

    name: "encoder" and "decoder" are the self-attention of these stacks, "cross" is a decoder's to its encoder.
    attentions: the modules' names, layer after layer. causal: whether a token sees its past only. heads: of each layer.
    """

    name: Literal["encoder", "decoder", "cross"]
    title: str
    attentions: tuple[str, ...]
    causal: bool
    heads: int

    def taps(self, tap: Literal["weights", "heads"]) -> list[str]:
        """The names of one tap in all layers."""
        return [f"{name}.{tap}" for name in self.attentions]


def groups(model: Model) -> list[Group]:
    """One for an encoder or a decoder alone; three where there are both.

    Raises:
        InputError: there are no layers, or cross-attention has more heads in some layers than in others.
    """
    require_layers(model)
    match model:
        case EncoderOnly():
            return [_self("encoder", model.config.encoder)]
        case DecoderOnly():
            return [_self("decoder", model.config.decoder)]
        case EncoderDecoder():
            names = tuple(f"decoder.layers.{layer}.cross_attention" for layer in range(len(model.decoder.layers)))
            counts = {block.cross.heads for block in model.config.decoder.blocks}
            if len(counts) > 1:
                raise InputError(
                    f"the layers' cross-attentions have {sorted(counts)} heads, and no table of layers and heads fits",
                    "Record single layers.",
                )
            heads = counts.pop()
            cross = Group("cross", "Cross-attention", names, causal=False, heads=heads)
            return [_self("encoder", model.config.encoder), _self("decoder", model.config.decoder), cross]


def require_layers(model: Model) -> None:
    """
    Raises:
        InputError: the model has no layers, whose attention or stream could be looked at.
    """
    if isinstance(model, EncoderOnly) and not model.config.encoder.layers:
        raise InputError(
            "the model has no layers (encoder.layers = 0), so there is no attention and no stream to look at",
            "Look at a model that has layers.",
        )


def _self(name: Literal["encoder", "decoder"], stack: config.Stack) -> Group:
    names = tuple(f"{name}.layers.{layer}.self_attention" for layer in range(stack.layers))
    # All layers of a stack have the same number of heads: the tree sees to it.
    return Group(name, f"{name.capitalize()} self-attention", names, name == "decoder", stack.block.attention.heads)
