"""The steps of an encoder-decoder that the engine runs alone, without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from sublayer.fast.engine.decoder import EngineDecoder, EngineState
from sublayer.generation.batch import Ranked

if TYPE_CHECKING:
    from torch import Tensor


class EngineSteps:
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

    def logits(self, tokens: list[int], state: EngineState) -> Tensor:
        """Never asked: `rank` always answers."""
        _refuse("logits")

    def replace(self, state: EngineState, sentences: list[int], other: EngineState) -> None:
        """Never asked: a batch of fixed texts is not joined."""
        _refuse("replace")

    def join(self, state: EngineState, other: EngineState) -> None:
        """Never asked, as `replace`."""
        _refuse("join")


def _refuse(what: str) -> NoReturn:
    raise NotImplementedError(f"the engine alone has no '{what}'")
