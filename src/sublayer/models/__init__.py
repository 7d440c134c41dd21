"""Parts put together: whole models of the three shapes, and their recurrent rivals."""

from __future__ import annotations

from typing import overload

from sublayer import config
from sublayer.models.decoder import Decoder, DecoderState
from sublayer.models.decoder_only import DecoderOnly
from sublayer.models.encoder import Encoder, Memory
from sublayer.models.encoder_decoder import EncoderDecoder
from sublayer.models.encoder_only import EncoderOnly
from sublayer.models.recurrent import RecurrentDecoderOnly, RecurrentEncoderDecoder, RecurrentState

Transformer = EncoderDecoder | DecoderOnly | EncoderOnly
Model = Transformer | RecurrentEncoderDecoder | RecurrentDecoderOnly

SequenceToSequence = EncoderDecoder | RecurrentEncoderDecoder
"""Whatever writes one text after reading another."""
CausalModel = DecoderOnly | RecurrentDecoderOnly
"""Whatever goes on with a text."""


@overload
def build_model(c: config.Transformer) -> Transformer: ...
@overload
def build_model(c: config.Transformer | config.Recurrent) -> Model: ...
def build_model(c: config.Transformer | config.Recurrent) -> Model:
    """The model that the tree describes, with fresh weights."""
    match c:
        case config.EncoderDecoder():
            return EncoderDecoder(c)
        case config.DecoderOnly():
            return DecoderOnly(c)
        case config.EncoderOnly():
            return EncoderOnly(c)
        case config.RecurrentEncoderDecoder():
            return RecurrentEncoderDecoder(c)
        case config.RecurrentDecoderOnly():
            return RecurrentDecoderOnly(c)


__all__ = [
    "CausalModel", "Decoder", "DecoderOnly", "DecoderState", "Encoder", "EncoderDecoder", "EncoderOnly", "Memory",
    "Model", "RecurrentDecoderOnly", "RecurrentEncoderDecoder", "RecurrentState", "SequenceToSequence", "Transformer",
    "build_model",
]  # fmt: skip
