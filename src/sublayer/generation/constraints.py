"""Constraints: penalties, banned and forced tokens, applied to the scores before a token is chosen.

A constraint is a value that can be called with the scores [R, V] and with the tokens of each row so far, and gives
other scores; it changes nothing in place. `constraints_of` makes them from the configuration, in the order in which
`transformers` applies its own, whose definitions they have.

Greedy search and sampling constrain the logits. Beam search constrains log-probabilities, because they are what it
adds up; only `RepetitionPenalty` can tell the difference (log-probabilities are never positive).

Shapes: R rows, V vocabulary, L tokens so far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import torch
from torch import Tensor

from sublayer import config
from sublayer.errors import InputError

NOTHING = -1
"""Stands in `TokenHistory.tokens` before the beginning of a row that is shorter than others."""
NEVER = float("-inf")


class TokenHistory:
    """The tokens of each row so far: the prompt (or the start marker), and what has been added since.

    new: for each row, how many have been added.
    """

    def __init__(self, rows: Sequence[Sequence[int]], new: Sequence[int], device: torch.device) -> None:
        """
        Args:
            rows: all tokens of each row, at least one.
        """
        self._rows, self.new, self._device = rows, new, device

    @cached_property
    def tokens(self) -> Tensor:
        """[R, L] int64; rows end together at the right, and `NOTHING` stands before the shorter ones."""
        width = max(map(len, self._rows))
        table = [[*[NOTHING] * (width - len(row)), *row] for row in self._rows]
        return torch.tensor(table, dtype=torch.int64, device=self._device)

    def rows_with(self, holds: Callable[[int], bool]) -> list[int]:
        """The rows whose number of new tokens has this property."""
        return [row for row, new in enumerate(self.new) if holds(new)]


class Constraint(Protocol):
    """Scores [R, V] and the tokens so far -> scores [R, V]."""

    def __call__(self, scores: Tensor, history: TokenHistory) -> Tensor: ...


@dataclass(frozen=True)
class RepetitionPenalty:
    """Penalize tokens that occurred before: divide a positive score by `penalty`, multiply a negative one.

    Keskar et al. 2019, "CTRL", section 4.1 (https://arxiv.org/abs/1909.05858), as `transformers` has it.
    """

    penalty: float

    def __call__(self, scores: Tensor, history: TokenHistory) -> Tensor:
        # One more column takes what stands before a row's beginning.
        wider = torch.nn.functional.pad(scores, (0, 1))
        index = _or_spare(history.tokens, scores.shape[1])
        old = wider.gather(1, index)
        new = torch.where(old < 0, old * self.penalty, old / self.penalty)
        return wider.scatter(1, index, new)[:, :-1]


@dataclass(frozen=True)
class NoRepeatNGram:
    """Never repeat an n-gram of this size, also not one of the prompt (Paulus et al. 2017, section 2.5)."""

    size: int

    def __call__(self, scores: Tensor, history: TokenHistory) -> Tensor:
        tokens, vocabulary = history.tokens, scores.shape[1]
        length = tokens.shape[1]
        if length < self.size:
            return scores
        # The windows that begin as the next one would: their last token would be a repetition.
        windows = tokens.unfold(1, self.size, 1)
        begun = tokens[:, length - self.size + 1 :]
        repeated = (windows[..., :-1] == begun.unsqueeze(1)).all(dim=-1)
        banned = scores.new_zeros(scores.shape[0], vocabulary + 1, dtype=torch.bool)
        banned.scatter_(1, _or_spare(windows[..., -1].where(repeated, NOTHING), vocabulary), True)
        return scores.masked_fill(banned[:, :-1], NEVER)


@dataclass(frozen=True)
class Banned:
    """Never generate these tokens."""

    ids: tuple[int, ...]

    def __call__(self, scores: Tensor, history: TokenHistory) -> Tensor:
        return scores.index_fill(1, _index(self.ids, scores.device), NEVER)


@dataclass(frozen=True)
class MinLength:
    """Forbid the end tokens before `length` new tokens."""

    length: int
    end_ids: frozenset[int]

    def __call__(self, scores: Tensor, history: TokenHistory) -> Tensor:
        index = _index(tuple(sorted(self.end_ids)), scores.device)
        early = history.rows_with(lambda new: new < self.length)
        return _changed(scores, early, lambda some: some.index_fill(1, index, NEVER))


@dataclass(frozen=True)
class Allowed:
    """Generate these tokens only. Without an end token among them, every text runs to its limit."""

    ids: tuple[int, ...]

    def __call__(self, scores: Tensor, history: TokenHistory) -> Tensor:
        index = _index(self.ids, scores.device)
        return torch.full_like(scores, NEVER).index_copy_(1, index, scores.index_select(1, index))


@dataclass(frozen=True)
class ForcedStart:
    """The first new tokens are these, such as the language that mBART and NLLB translate into. They cost nothing."""

    ids: tuple[int, ...]

    def __call__(self, scores: Tensor, history: TokenHistory) -> Tensor:
        for place, token in enumerate(self.ids):
            scores = _changed(
                scores, history.rows_with(lambda new, at=place: new == at), lambda s, t=token: _only(s, t)
            )
        return scores


@dataclass(frozen=True)
class ForcedEnd:
    """The new token number `place` (from 0) is this one, whatever the scores: a text that has no room left ends."""

    place: int
    id: int

    def __call__(self, scores: Tensor, history: TokenHistory) -> Tensor:
        last = history.rows_with(lambda new: new == self.place)
        return _changed(scores, last, lambda some: _only(some, self.id))


@dataclass(frozen=True)
class LogitBias:
    """Add a number to the scores of some tokens, as OpenAI's `logit_bias`: pairs of token and number."""

    biases: tuple[tuple[int, float], ...]

    def __call__(self, scores: Tensor, history: TokenHistory) -> Tensor:
        index = _index(tuple(token for token, _ in self.biases), scores.device)
        added = torch.tensor([bias for _, bias in self.biases], dtype=scores.dtype, device=scores.device)
        return scores.index_add(1, index, added.expand(len(scores), -1))


@dataclass(frozen=True)
class OccurrencePenalty:
    """Lower the score of a new token's further occurrences, as OpenAI's `frequency_penalty` and `presence_penalty`:

        score(t) - frequency * count(t) - presence * [count(t) > 0]

    where count(t) is how often t is among the new tokens; the prompt does not count.
    """

    frequency: float
    presence: float

    def __call__(self, scores: Tensor, history: TokenHistory) -> Tensor:
        said = history.tokens
        place = torch.arange(said.shape[1], device=said.device)
        begun = said.shape[1] - torch.tensor(history.new, device=said.device).unsqueeze(1)
        index = _or_spare(said.where(place >= begun, NOTHING), scores.shape[1])
        count = scores.new_zeros(scores.shape[0], scores.shape[1] + 1)
        count.scatter_add_(1, index, torch.ones_like(index, dtype=scores.dtype))
        count = count[:, :-1]
        return scores - self.frequency * count - self.presence * (count > 0)


@dataclass(frozen=True)
class Renormalize:
    """Renormalize: make the scores log-probabilities whose exponentials sum to 1."""

    def __call__(self, scores: Tensor, history: TokenHistory) -> Tensor:
        return scores.log_softmax(dim=-1)


def constraints_of(
    c: config.Constraints, end_ids: frozenset[int], vocab_size: int, last: ForcedEnd | None = None
) -> tuple[Constraint, ...]:
    """The constraints that `c` describes, none where it describes none; and `last`, how texts without room end.

    Raises:
        InputError: a token is not in the vocabulary.
    """
    for name, ids in (("banned", c.banned), ("allowed", c.allowed or ()), ("forced", c.forced)):
        for token in ids:
            if not 0 <= token < vocab_size:
                raise InputError(
                    f"constraints.{name} holds {token}, but the vocabulary is 0 to {vocab_size - 1}",
                    "Name tokens of this model's tokenizer.",
                )
    found: list[Constraint] = []
    if c.repetition_penalty != 1.0:
        found.append(RepetitionPenalty(c.repetition_penalty))
    if c.no_repeat_ngram is not None:
        found.append(NoRepeatNGram(c.no_repeat_ngram))
    if c.banned:
        found.append(Banned(c.banned))
    # A token that no row of the vocabulary stands for never comes, so it need not be kept from coming.
    ends = frozenset(token for token in end_ids if 0 <= token < vocab_size)
    if c.min_length and ends:
        found.append(MinLength(c.min_length, ends))
    if c.allowed is not None:
        found.append(Allowed(tuple(dict.fromkeys(c.allowed))))
    if c.forced:
        found.append(ForcedStart(c.forced))
    if last is not None:
        found.append(last)
    if c.renormalize:
        found.append(Renormalize())
    return tuple(found)


def constrain(scores: Tensor, constraints: Sequence[Constraint], history: TokenHistory | None) -> Tensor:
    """`scores` after all constraints, which need to know the tokens so far."""
    for constraint in constraints:
        assert history is not None
        scores = constraint(scores, history)
    return scores


def nothing_left() -> InputError:
    """What is raised where every token has been ruled out."""
    return InputError(
        "the constraints leave no token that could come next", "Allow more tokens, or a longer no_repeat_ngram."
    )


def _changed(scores: Tensor, rows: Sequence[int], change: Callable[[Tensor], Tensor]) -> Tensor:
    """`scores` with `change` made to some rows."""
    if not rows:
        return scores
    if len(rows) == len(scores):
        return change(scores)
    index = torch.tensor(rows, device=scores.device)
    return scores.index_copy(0, index, change(scores[index]))


def _only(scores: Tensor, token: int) -> Tensor:
    """One token that costs nothing, and no other."""
    forced = torch.full_like(scores, NEVER)
    forced[:, token] = 0.0
    return forced


def _or_spare(tokens: Tensor, spare: int) -> Tensor:
    """`tokens` with column `spare` for those that are none, or none of the vocabulary."""
    return tokens.where((tokens >= 0) & (tokens < spare), spare)


@lru_cache(maxsize=16)
def _index(ids: tuple[int, ...], device: torch.device) -> Tensor:
    # Made once: a vocabulary's worth of ids takes longer to convert than a step.
    with torch.inference_mode(False):
        return torch.tensor(ids, dtype=torch.int64, device=device)
