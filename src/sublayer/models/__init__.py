"""Parts put together: whole models."""

from sublayer.models.decoder import Decoder, DecoderState
from sublayer.models.encoder import Encoder, Memory
from sublayer.models.encoder_decoder import EncoderDecoder

__all__ = ["Decoder", "DecoderState", "Encoder", "EncoderDecoder", "Memory"]
