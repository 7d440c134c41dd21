"""What translated and wrote before the Transformer, behind the same calls: `hidden`, `project`, `start`, `step`."""

from sublayer.models.recurrent.decoder_only import RecurrentDecoderOnly
from sublayer.models.recurrent.encoder_decoder import RecurrentEncoderDecoder
from sublayer.models.recurrent.state import RecurrentState

__all__ = ["RecurrentDecoderOnly", "RecurrentEncoderDecoder", "RecurrentState"]
