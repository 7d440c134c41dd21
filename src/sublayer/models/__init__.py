"""Parts put together: whole models of the three shapes."""

from __future__ import annotations

from sublayer import config
from sublayer.models.decoder import Decoder, DecoderState
from sublayer.models.decoder_only import DecoderOnly
from sublayer.models.encoder import Encoder, Memory
from sublayer.models.encoder_decoder import EncoderDecoder
from sublayer.models.encoder_only import EncoderOnly

Model = EncoderDecoder | DecoderOnly | EncoderOnly


def build_model(c: config.EncoderDecoder | config.DecoderOnly | config.EncoderOnly) -> Model:
    """The model that the tree describes, with fresh weights."""
    match c:
        case config.EncoderDecoder():
            return EncoderDecoder(c)
        case config.DecoderOnly():
            return DecoderOnly(c)
        case config.EncoderOnly():
            return EncoderOnly(c)


__all__ = [
    "Decoder",
    "DecoderOnly",
    "DecoderState",
    "Encoder",
    "EncoderDecoder",
    "EncoderOnly",
    "Memory",
    "Model",
    "build_model",
]
