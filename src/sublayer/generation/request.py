"""What is asked of a search, and what it finds: where texts begin and end, and the texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sublayer.errors import InputError


@dataclass(frozen=True)
class DecodeRequest:
    """Where texts begin, end, and must end.

    first: for each sentence, the first token fed (the start marker of a translation; the last token of a prompt).
    end_ids: the tokens that end a text. steps: for each sentence, tokens at most, the end marker included.
    before: for each sentence, what stands before `first` as constraints see it (the rest of a prompt); may be left out.
    """

    first: list[int]
    end_ids: frozenset[int]
    steps: list[int]
    before: Sequence[Sequence[int]] = ()

    def of(self, sentence: int) -> DecodeRequest:
        """Those of one sentence alone."""
        one = slice(sentence, sentence + 1)
        return DecodeRequest(self.first[one], self.end_ids, self.steps[one], self.before[one])

    @property
    def prompts(self) -> list[list[int]]:
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


def nothing_left() -> InputError:
    """What is raised where every token has been ruled out."""
    return InputError(
        "the constraints leave no token that could come next", "Allow more tokens, or a longer no_repeat_ngram."
    )
