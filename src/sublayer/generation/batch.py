"""The one loop of decoding: texts that are decoded together, a step at a time, of which some join and others leave.

A batch of fixed texts (`loop.decode`, `beam.beam_search`) and the running batch of a server are the same thing. What is
done with a step's scores is the text's own: each has a `Search`, and those that have the same one are handled together.
So the model's step is shared, and a text is decoded in company as it is alone.

What computes a step is spoken to in lists of numbers (`Steps`), so that nothing here needs torch: a decoder backend
(`model_steps.py`), or the engine alone (`engine_steps.py`).

Shapes: R rows, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from sublayer.errors import SublayerError

StateT = TypeVar("StateT")
Taken = TypeVar("Taken", contravariant=True)
"""A state, as who computes steps takes it."""


class Ranked(NamedTuple):
    """The most probable tokens of each row, most probable first.

    logs: their log-probabilities, float32 [R, n]. tokens: int64 [R, n].
    """

    logs: NDArray[np.float32]
    tokens: NDArray[np.int64]

    def of(self, rows: list[int], count: int) -> Ranked:
        """The first `count` of some rows."""
        return Ranked(self.logs[rows, :count], self.tokens[rows, :count])


@dataclass(frozen=True, eq=False)
class Offer:
    """What the model says of what may follow in some rows, in one of two ways.

    logits: float32 [R, V]. ranked: for searches that ask for no more.
    """

    logits: Tensor | None = None
    ranked: Ranked | None = None


class Steps(ABC, Generic[Taken]):
    """What computes the steps of a batch, and what a batch does to a state; see `State` in `models/backend.py`.

    start: a state of these sources, or of prompts without their last tokens; see `DecoderBackend`.
    rank: feed a token a row, and say what is most probable, `count` tokens a row at most; None, and nothing fed, where
    only logits can be had. logits: feed a token a row; float32 [R, V]. Who steps batches of fixed texts alone is never
    asked to replace or join.
    """

    @abstractmethod
    def start(self, sources: Sequence[Sequence[int]], *, num_beams: int, capacity: int) -> Any: ...

    @abstractmethod
    def rank(self, tokens: list[int], state: Taken, count: int) -> Ranked | None: ...

    @abstractmethod
    def logits(self, tokens: list[int], state: Taken) -> Tensor: ...

    @abstractmethod
    def reorder(self, state: Taken, rows: list[int]) -> None: ...

    @abstractmethod
    def keep(self, state: Taken, sentences: list[int]) -> None: ...

    def replace(self, state: Taken, sentences: list[int], other: Taken) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no 'replace'")

    def join(self, state: Taken, other: Taken) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no 'join'")


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


@dataclass(eq=False)
class Text:
    """One text of a batch.

    prompt: what stands before the first new token, that last one included, as constraints see it. limit: tokens at
    most. feed: the token that each of its rows is fed next. origins: of each row, which of the rows before the step it
    goes on from; None where each goes on from itself. error: why it cannot go on; it is done then.
    """

    search: Any
    prompt: Sequence[int]
    limit: int
    origins: Sequence[int] | None = field(default=None, init=False)
    error: SublayerError | None = field(default=None, init=False)
    done: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.feed = [self.prompt[-1]] * self.search.rows

    def fail(self, error: SublayerError) -> None:
        self.error, self.done = error, True


class Batch(Generic[StateT]):
    """Texts that are decoded together, with as many rows each.

    Args:
        rows: of a text. width: of a sentence of the model's state, which may be several texts (samples of one prompt):
            its rows stay until all of them are done.
    """

    def __init__(self, steps: Steps[StateT], *, rows: int = 1, width: int | None = None) -> None:
        self.steps = steps
        self.rows, self.width = rows, rows if width is None else width
        self.texts: list[Any] = []
        self._state: StateT | None = None

    def join(self, state: StateT, texts: Sequence[Text]) -> None:
        """Go on with these texts too, in the places of some that are done where there are enough. The state is theirs,
        in order, and must not be used any more."""
        each = self.width // self.rows
        over = [one for one, done in enumerate(self._over()) if done]
        count = len(texts) // each
        if self._state is None:
            self._state, self.texts = state, list(texts)
        elif count <= len(over):
            self.steps.replace(self._state, over[:count], state)
            for place, one in enumerate(over[:count]):
                self.texts[one * each : (one + 1) * each] = texts[place * each : (place + 1) * each]
        else:
            self.drop()
            if self._state is not None:
                self.steps.join(self._state, state)
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
        feed = [token for text in self.texts for token in text.feed]
        groups = self._alike()
        ranks = [search.ranks for search, _ in groups]
        ranked = None
        if None not in ranks:
            ranked = self.steps.rank(feed, self._state, max(rank for rank in ranks if rank is not None))
        logits = self.steps.logits(feed, self._state) if ranked is None else None
        if len(groups) == 1:
            groups[0][0].advance(Offer(logits, ranked), self.texts)
        else:
            for search, places in groups:
                rows = [at * self.rows + row for at in places for row in range(self.rows)]
                if ranked is not None:
                    assert search.ranks is not None
                    offer = Offer(ranked=ranked.of(rows, search.ranks))
                else:
                    assert logits is not None
                    offer = Offer(logits[rows])
                search.advance(offer, [self.texts[at] for at in places])
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
            self.steps.keep(self._state, staying)
            self.texts = [text for one in staying for text in self.texts[one * each : (one + 1) * each]]

    def _alike(self) -> list[tuple[Search, list[int]]]:
        """The searches, and the places of their texts."""
        groups: dict[int, tuple[Search, list[int]]] = {}
        for place, text in enumerate(self.texts):
            groups.setdefault(id(text.search), (text.search, []))[1].append(place)
        return list(groups.values())

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
            self.steps.reorder(self._state, rows)
