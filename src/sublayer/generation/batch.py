"""The one loop of decoding: texts that are decoded together, a step at a time, of which some join and others leave.

A batch of fixed texts (`loop.decode`, `beam.beam_search`) and the running batch of a server are the same thing. What is
done with a step's scores is the text's own: each has a `Search`, and those that have the same one are handled together.
So the model's step is shared, and a text is decoded in company as it is alone.

Shapes: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol

import torch
from torch import Tensor

from sublayer.errors import SublayerError
from sublayer.models.backend import DecoderBackend, S, ranked


@dataclass(frozen=True, eq=False)
class Offer:
    """What the model says of what may follow in some rows, in one of two ways.

    logits: float32 [R, V]. ranked: the log-probabilities of the most probable tokens, largest first, and the tokens,
    [R, n] each; for searches that ask for no more.
    """

    logits: Tensor | None = None
    ranked: tuple[Tensor, Tensor] | None = None

    def of(self, rows: Tensor) -> Offer:
        """That of some rows."""
        return Offer(
            None if self.logits is None else self.logits[rows],
            None if self.ranked is None else (self.ranked[0][rows], self.ranked[1][rows]),
        )


class Search(Protocol):
    """How texts go on.

    rows: rows of the batch that a text takes. ranks: how many of the most probable tokens are enough for it; None where
    it asks for all logits.
    """

    @property
    def rows(self) -> int: ...

    @property
    def ranks(self) -> int | None: ...

    def advance(self, offer: Offer, texts: Sequence[Any]) -> None:
        """Take one step with texts of this search, whose rows are those of the offer in order."""
        ...


class Text(Protocol):
    """One text of a batch, as far as the batch asks.

    feed: the token that each of its rows is fed next. origins: of each row, which of the rows before the step it goes
    on from. error: why it cannot go on; it is done then.
    """

    search: Any
    feed: list[int]
    error: SublayerError | None
    done: bool

    @property
    def origins(self) -> Sequence[int] | None: ...


class Batch(Generic[S]):
    """Texts that are decoded together, with as many rows each.

    Args:
        rows: of a text. width: of a sentence of the model's state, which may be several texts (samples of one prompt):
            its rows stay until all of them are done.
    """

    def __init__(
        self, model: DecoderBackend[S], device: torch.device, *, rows: int = 1, width: int | None = None
    ) -> None:
        self.model, self.device = model, device
        self.rows, self.width = rows, rows if width is None else width
        self.texts: list[Any] = []
        self._state: S | None = None

    def join(self, state: S, texts: Sequence[Text]) -> None:
        """Go on with these texts too, in the places of some that are done where there are enough. The state is theirs,
        in order, and must not be used any more."""
        each = self.width // self.rows
        over = [one for one, done in enumerate(self._over()) if done]
        count = len(texts) // each
        if self._state is None:
            self._state, self.texts = state, list(texts)
        elif count <= len(over):
            self._state.replace(torch.tensor(over[:count], device=self.device), state)
            for place, one in enumerate(over[:count]):
                self.texts[one * each : (one + 1) * each] = texts[place * each : (place + 1) * each]
        else:
            self.drop()
            if self.texts:
                self._state.join(state)
                self.texts += texts
            else:
                self._state, self.texts = state, list(texts)

    def _over(self) -> list[bool]:
        """Whether all texts of a sentence are done, for each sentence."""
        each = self.width // self.rows
        return [all(text.done for text in self.texts[at : at + each]) for at in range(0, len(self.texts), each)]

    @property
    def running(self) -> list[Any]:
        """The texts that are not done."""
        return [text for text in self.texts if not text.done]

    def step(self) -> None:
        """Feed every row its next token, and let every text go on. Rows of texts that are done are computed too."""
        assert self._state is not None
        feed = torch.tensor([token for text in self.texts for token in text.feed], device=self.device).unsqueeze(1)
        groups = self._alike()
        ranks = [search.ranks for search, _ in groups]
        best = None
        if None not in ranks:
            best = ranked(self.model, feed, self._state, max(rank for rank in ranks if rank is not None))
        logits = self.model.step(feed, self._state)[:, -1].float() if best is None else None
        offer = Offer(logits, best)
        for search, places in groups:
            own = offer if len(groups) == 1 else offer.of(self._rows_of(places))
            search.advance(own, [self.texts[at] for at in places])
        self._reorder()

    def drop(self, most: float = 1.0) -> None:
        """Forget the texts that are done.

        Args:
            most: only where at most this share of the sentences is left, for to drop some copies the cache.
        """
        each = self.width // self.rows
        over = self._over()
        staying, count = [one for one, done in enumerate(over) if not done], len(over)
        if not staying:
            self.texts, self._state = [], None
        elif len(staying) < count and len(staying) <= most * count:
            assert self._state is not None
            self._state.keep(torch.tensor(staying, device=self.device))
            self.texts = [text for one in staying for text in self.texts[one * each : (one + 1) * each]]

    def _alike(self) -> list[tuple[Search, list[int]]]:
        """The searches, and the places of their texts."""
        groups: dict[int, tuple[Search, list[int]]] = {}
        for place, text in enumerate(self.texts):
            groups.setdefault(id(text.search), (text.search, []))[1].append(place)
        return list(groups.values())

    def _rows_of(self, places: Sequence[int]) -> Tensor:
        return torch.tensor([at * self.rows + row for at in places for row in range(self.rows)], device=self.device)

    def _reorder(self) -> None:
        if all(text.origins is None or text.done for text in self.texts):
            return
        same = range(self.rows)
        rows = [
            place * self.rows + origin
            for place, text in enumerate(self.texts)
            for origin in (same if text.origins is None or text.done else text.origins)
        ]
        if rows != list(range(len(rows))):
            assert self._state is not None
            self._state.reorder(torch.tensor(rows, device=self.device))
