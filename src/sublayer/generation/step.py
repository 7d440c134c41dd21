"""The step contract: what search asks of a model, and all that it asks.

`start` makes a state, `step` feeds one token a row and gives the logits of what follows. Whoever fulfils this (an
eager model, a compiled one, a recurrent one, a native runner) can be searched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import Tensor


class State(Protocol):
    """What a model remembers between steps. Rows belong to sentences: row b * rows + r is hypothesis r of b."""

    @property
    def length(self) -> int: ...

    def reorder(self, rows: Tensor) -> None: ...

    def keep(self, sentences: Tensor) -> None: ...

    def truncate(self, length: int) -> None: ...


S = TypeVar("S", bound=State)


class Stepper(Protocol[S]):
    """A model that decodes one step after another."""

    def start(
        self, source: Tensor, source_lengths: Tensor | None = None, *, rows: int = 1, capacity: int | None = None
    ) -> S: ...

    def step(self, tokens: Tensor, state: S) -> Tensor: ...


@dataclass(frozen=True)
class Limits:
    """Where a translation begins, ends, and must end.

    start_id, end_id: the first token fed, and the token that ends. steps: for each sentence, tokens at most, the end
    marker included.
    """

    start_id: int
    end_id: int
    steps: list[int]


@dataclass(frozen=True)
class Hypothesis:
    """One translation.

    tokens: without start and end markers. log_probability: natural log of P(tokens, end | source).
    score: what hypotheses are ranked by. complete: whether the end marker came before the limit.
    """

    tokens: list[int]
    log_probability: float
    score: float
    complete: bool
