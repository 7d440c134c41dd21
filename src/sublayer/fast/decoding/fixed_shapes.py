"""The modules of a model, in steps whose shapes do not change as a text grows.

Each step reads all of the cache's capacity and masks what is not there yet. On a CPU that is wasted work; where a step
is compiled, or captured and replayed, it is what makes that possible.
"""

from __future__ import annotations

from torch import Tensor

from sublayer.models import DecoderOnly, DecoderState, EncoderDecoder


class FixedShapes:
    """Steps as `model` does, with a cache of fixed shapes (`nn/cache.py`)."""

    def __init__(self, model: EncoderDecoder | DecoderOnly) -> None:
        self.model = model

    def start(
        self, source: Tensor, source_lengths: Tensor | None = None, *, num_beams: int = 1, capacity: int | None = None
    ) -> DecoderState:
        """As the model's own `start`."""
        return self.model.start(source, source_lengths, num_beams=num_beams, capacity=capacity, fixed=True)

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """As the model's own `step`. Shape: tokens [B * num_beams, n] int64 -> [B * num_beams, n, V]."""
        return self.model.step(tokens, state)
