"""A batch of translations that the engine steps alone, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from sublayer.fast.engine.decoder import EngineDecoder
from sublayer.generation.batch import Chosen, Ranked
from sublayer.generation.request import DecodeRequest


class NotFinite(Exception):
    """The numbers are not finite; the modules can tell where that begins."""


class EngineBatch:
    """The sources of a request, read: see `Batch`. Without constraints.

    Args:
        pad: a token to fill up shorter sources.
    """

    def __init__(
        self,
        decoder: EngineDecoder,
        sources: Sequence[Sequence[int]],
        pad: int,
        request: DecodeRequest,
        *,
        num_beams: int,
    ) -> None:
        self._decoder = decoder
        self._state = decoder.start(sources, pad, num_beams=num_beams, capacity=max(request.steps))

    def rank(self, tokens: Sequence[int], count: int) -> Ranked:
        """See `Batch`."""
        logs, places = self._decoder.best(tokens, self._state, count)
        return Ranked(logs, logs, places)

    def choose(self, tokens: Sequence[int], rows: Sequence[int], step: int) -> Chosen:
        """See `Batch`; the most probable."""
        logs, places = self._decoder.best(tokens, self._state, 1)
        return Chosen(places[:, 0].tolist(), logs[:, 0].tolist(), [True] * len(tokens))

    def reorder(self, rows: Sequence[int]) -> None:
        """See `Batch`."""
        self._state.reorder(rows)

    def keep(self, sentences: Sequence[int]) -> None:
        """See `Batch`."""
        self._state.keep(sentences)

    def restart(self, texts: Sequence[Sequence[int]], capacity: int) -> None:
        """Never asked of a translation, which fits."""
        raise NotImplementedError

    def refuse(self, step: int) -> NoReturn:
        """See `Batch`."""
        raise NotFinite
