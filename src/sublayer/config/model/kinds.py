"""What a model is: one of the five shapes, by its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, get_args

from pydantic import Field

from sublayer.config.model.recurrent_shapes import RecurrentDecoderOnly, RecurrentEncoderDecoder
from sublayer.config.model.shapes import DecoderOnly, EncoderDecoder, EncoderOnly

__all__ = ["KINDS", "Model", "Recurrent", "Transformer"]

Transformer = EncoderDecoder | DecoderOnly | EncoderOnly
Recurrent = RecurrentEncoderDecoder | RecurrentDecoderOnly
Model = Annotated[Transformer | Recurrent, Field(discriminator="kind")]

KINDS: Mapping[str, type[Transformer] | type[Recurrent]] = {
    shape.model_fields["kind"].default: shape for shape in get_args(Transformer | Recurrent)
}
