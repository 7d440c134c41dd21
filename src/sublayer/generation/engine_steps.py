"""The steps of a model that the engine runs alone: without torch, but for logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sublayer.fast.engine.decoder import EngineDecoder, EngineState, Integers
from sublayer.generation.batch import Ranked, Steps

if TYPE_CHECKING:
    from torch import Tensor


class EngineSteps(Steps[EngineState]):
    """See `Steps`. For batches that nobody joins.

    Args:
        pad: a token that fills up shorter sources. listed: the tokens that may come, as `EngineDecoder.start` takes
            them.
    """

    def __init__(
        self, decoder: EngineDecoder, pad: int = 0, listed: tuple[Integers, NDArray[np.bool_]] | None = None
    ) -> None:
        self.decoder, self._pad, self._listed = decoder, pad, listed

    def start(self, sources: Sequence[Sequence[int]], *, num_beams: int, capacity: int) -> EngineState:
        """See `Steps`."""
        return self.decoder.start(sources, self._pad, num_beams=num_beams, capacity=capacity, listed=self._listed)

    def rank(self, tokens: list[int], state: EngineState, count: int) -> Ranked:
        """See `Steps`."""
        return Ranked(*self.decoder.best(tokens, state, count))

    def reorder(self, state: EngineState, rows: list[int]) -> None:
        """See `Steps`."""
        state.reorder(rows)

    def keep(self, state: EngineState, sentences: list[int]) -> None:
        """See `Steps`."""
        state.keep(sentences)

    def logits(self, tokens: list[int], state: EngineState) -> Tensor:
        """See `Steps`. Not for states with a list of tokens."""
        import torch

        return torch.from_numpy(self.decoder.logits(tokens, state))
