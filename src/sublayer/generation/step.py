"""The step contract: what search asks of a model, and all that it asks.

`start` makes a state, `step` feeds one token a row (or several) and gives the logits of what follows. Whoever fulfils
this (an eager model, a compiled one, a recurrent one, a native runner) can be searched.

What `start` is given is the sentence to translate, for an encoder-decoder; for a decoder-only model it is the prompt
without its last token, which is then the first that `step` is fed. `capacity` counts the tokens that `step` will be
fed at most, in both cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
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
    """Where texts begin, end, and must end.

    first: for each sentence, the first token fed (the start marker of a translation; the last token of a prompt).
    end_ids: the tokens that end a text. steps: for each sentence, tokens at most, the end marker included.
    before: for each sentence, what stands before `first` as constraints see it (the rest of a prompt); may be left out.
    """

    first: list[int]
    end_ids: frozenset[int]
    steps: list[int]
    before: Sequence[Sequence[int]] = ()

    def of(self, sentence: int) -> Limits:
        """Those of one sentence alone."""
        one = slice(sentence, sentence + 1)
        return Limits(self.first[one], self.end_ids, self.steps[one], self.before[one])

    @property
    def said(self) -> list[list[int]]:
        """For each sentence, what stands before the first new token."""
        before = self.before or [()] * len(self.first)
        return [[*earlier, first] for earlier, first in zip(before, self.first, strict=True)]


@dataclass(frozen=True)
class Hypothesis:
    """One text that search has found.

    tokens: without start and end markers. log_probability: natural log of P(tokens, end | source), as the model has it
    before any constraint. score: what hypotheses are ranked by. complete: whether an end marker came before the limit.
    log_probabilities: of each token, and of the end marker where it came; their sum is `log_probability`.
    """

    tokens: list[int]
    log_probability: float
    score: float
    complete: bool
    log_probabilities: list[float] = field(default_factory=lambda: list[float]())
