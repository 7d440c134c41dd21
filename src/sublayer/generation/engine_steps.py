"""The steps of an encoder-decoder that the engine runs alone, without torch."""

from __future__ import annotations

from sublayer.fast.engine.decoder import EngineDecoder, EngineState
from sublayer.generation.batch import Ranked, Steps


class EngineSteps(Steps[EngineState]):
    """See `Steps`. For searches that ask for the most probable tokens, in batches that nobody joins."""

    def __init__(self, decoder: EngineDecoder) -> None:
        self.decoder = decoder

    def rank(self, tokens: list[int], state: EngineState, count: int) -> Ranked:
        """See `Steps`."""
        return Ranked(*self.decoder.best(tokens, state, count))

    def reorder(self, state: EngineState, rows: list[int]) -> None:
        """See `Steps`."""
        state.reorder(rows)

    def keep(self, state: EngineState, sentences: list[int]) -> None:
        """See `Steps`."""
        state.keep(sentences)
