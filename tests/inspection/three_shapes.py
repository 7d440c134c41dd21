"""Small models of the three shapes with large random weights in float64, and what each is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from laws.models import redraw
from sublayer import config
from sublayer.models import DecoderOnly, EncoderDecoder, EncoderOnly

VOCABULARY, DIM, HEADS = 23, 16, 4
Built = EncoderDecoder | DecoderOnly | EncoderOnly


def stack(layers: int = 2, position: config.Position | None = None, **block: Any) -> config.Stack:
    attention = block.pop("attention", config.Attention(heads=HEADS, kv_heads=2))
    settings = {"norm_placement": "pre", "feed_forward": config.PositionWise(hidden=24, activation="gelu"), **block}
    return config.Stack(
        layers=layers,
        block=config.Block(attention=attention, **settings),
        position=config.Rotary(base=100.0) if position is None else position,
    )


def decoder_only(*, layers: int = 2, tied: bool = True, softcap: float | None = None, **block: Any) -> DecoderOnly:
    return drawn(
        DecoderOnly(
            config.DecoderOnly(
                dim=DIM,
                vocab_size=VOCABULARY,
                max_length=24,
                tied=tied,
                output_bias=True,
                logit_softcap=softcap,
                decoder=stack(layers, **block),
            )
        )
    )


def encoder_only(head: config.Head | None = None, **block: Any) -> EncoderOnly:
    return drawn(
        EncoderOnly(
            config.EncoderOnly(
                dim=DIM,
                vocab_size=VOCABULARY,
                max_length=24,
                encoder=stack(**block),
                head=config.MaskedLanguage() if head is None else head,
            )
        )
    )


def encoder_decoder(*, output_scale: float = 1.0, **block: Any) -> EncoderDecoder:
    return drawn(
        EncoderDecoder(
            config.EncoderDecoder(
                dim=DIM,
                vocab_size=VOCABULARY,
                max_length=24,
                output_bias=True,
                output_scale=output_scale,
                encoder=stack(**block),
                decoder=stack(**block),
            )
        )
    )


def drawn(model: Any) -> Any:
    model.double().eval()
    redraw(model, 7)
    return model


MAKERS: dict[str, Callable[..., Built]] = {
    "decoder-only": decoder_only,
    "encoder-only": encoder_only,
    "encoder-decoder": encoder_decoder,
}


def tokens(length: int = 7, rows: int = 2) -> Tensor:
    return torch.randint(4, VOCABULARY, (rows, length))


def ask(model: Built, given: Tensor, lengths: Tensor | None = None) -> Tensor:
    """The model's answer; an encoder-decoder is asked to write what it reads, shifted by one."""
    if isinstance(model, EncoderDecoder):
        return model(given, lengths, given.roll(1, dims=1))
    return model(given, lengths)


def relative(one: Tensor, other: Tensor) -> float:
    one, other = one.detach(), other.detach()
    return ((one - other).norm() / other.norm()).item()
