"""What was asked of a generator: all settings in one value, settled and checked before anything is computed."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sublayer import config
from sublayer.errors import InputError

if TYPE_CHECKING:
    from sublayer.generation.constraints import Constraint
    from sublayer.generation.speculative import PromptLookup
    from sublayer.models.backend import LanguageModel, Sizes, State

S = TypeVar("S", bound="State")
PAST_CONTEXT = "; greedy search and sampling without speculation go on past the context"


@dataclass(frozen=True)
class Speculation(Generic[S]):
    """Speculative decoding: a draft model with the same vocabulary, or prompt lookup, proposes `guesses` tokens a step.

    Greedy texts are the same as without it. Samples have the same distribution, but for a given seed another text.
    """

    draft: LanguageModel[S] | PromptLookup
    guesses: int = 4

    @property
    def model(self) -> LanguageModel[S] | None:
        """The draft model; None for prompt lookup."""
        from sublayer.generation.speculative import PromptLookup

        return None if isinstance(self.draft, PromptLookup) else self.draft


@dataclass(frozen=True)
class Asked:
    """What a caller of a generator asks for, as `Generator.generate` takes it; None: what the model has."""

    search: config.Search | None
    constraints: config.Constraints | None
    max_tokens: int | None
    stop: Sequence[str] | None
    n: int
    seed: int | None
    log_probabilities: bool
    speculation: Speculation[Any] | None
    first: int

    def over(self, decoding: config.Generation) -> config.Generation:
        """Lay the settings over the model's own."""
        told: dict[str, Any] = {
            "search": None if self.search is None else self.search.plain(),
            "constraints": None if self.constraints is None else self.constraints.plain(),
            "max_tokens": self.max_tokens,
            "stop": None if self.stop is None else list(self.stop),
        }
        given = {name: value for name, value in told.items() if value is not None}
        return config.Generation.parse({**decoding.plain(), **given}, "generate")


@dataclass(frozen=True)
class Plan:
    """All settings. context: the model's, in tokens; context_shift: whether a text may outgrow it."""

    asked: Asked
    c: config.Generation
    seed: int
    constraints: tuple[Constraint, ...]
    end_ids: frozenset[int]
    context: int
    context_shift: bool

    @classmethod
    def of(cls, asked: Asked, decoding: config.Generation, sizes: Sizes, end_id: int, *, context_shift: bool) -> Plan:
        """
        Raises:
            InputError: `n` or `speculation` does not fit the search. ConfigError: a value is out of range.
        """
        c = asked.over(decoding)
        _require_n(asked.n, c.search)
        if asked.speculation is not None:
            _require_guessing(asked.speculation, c.search, sizes.vocab_size)
        ends = frozenset({end_id, *c.end_ids})
        constraints: tuple[Constraint, ...] = ()
        if c.constraints != config.Constraints():
            from sublayer.generation.constraints import constraints_of

            constraints = constraints_of(c.constraints, ends, sizes.vocab_size)
        seed = secrets.randbits(63) if asked.seed is None else asked.seed
        return cls(asked, c, seed, constraints, ends, sizes.max_length, context_shift)

    def room(self, ids: list[int], number: int) -> int:
        """How many tokens may be added to a prompt.

        Args:
            number: the prompt's, in error messages.

        Raises:
            InputError: there is no room for them.
        """
        left = self.context - len(ids)
        if left < 1:
            raise InputError(
                f"prompt {number} has {len(ids)} tokens, which leaves no room in the model's context of {self.context}",
                "Shorten the prompt.",
            )
        c, asked = self.c, self.asked.max_tokens
        if asked is not None and asked > left:
            if self.context_shift and self.asked.speculation is None and not isinstance(c.search, config.Beam):
                return asked
            raise InputError(
                f"max_tokens = {asked}, but after the {len(ids)} tokens of prompt {number} only {left} remain of the "
                f"model's context of {self.context}",
                f"Ask for {left} at most, or shorten the prompt{'' if not self.context_shift else PAST_CONTEXT}.",
            )
        if c.max_tokens is not None:
            return min(left, c.max_tokens)
        return left if c.max_length is None else max(1, min(left, c.max_length - len(ids)))

    def require_draft_room(self, longest: int) -> None:
        """Raise `InputError` where a draft model cannot read `longest` tokens."""
        draft = None if self.asked.speculation is None else self.asked.speculation.model
        if draft is None:
            return
        context = draft.config.max_length
        if longest > context:
            raise InputError(
                f"the draft model's context of {context} tokens is too short: prompt and text may come to {longest}",
                "Ask for fewer tokens, or take another draft model.",
            )


def _require_guessing(speculation: Speculation[Any], search: config.Search, own: int) -> None:
    if isinstance(search, config.Beam):
        raise InputError("speculation goes with greedy search and sampling, not with a beam", "Choose one of them.")
    if speculation.guesses < 1:
        raise InputError(f"guesses = {speculation.guesses}", "Guess 1 token or more at a time.")
    if speculation.model is not None:
        other = speculation.model.config.vocab_size
        if own != other:
            raise InputError(
                f"the draft model has a vocabulary of {other} tokens, the model one of {own}",
                "Take a draft model with the same tokenizer.",
            )


def _require_n(n: int, search: config.Search) -> None:
    if n < 1:
        raise InputError(f"n = {n}", "Ask for 1 text or more.")
    if n > 1 and isinstance(search, config.Greedy):
        raise InputError(f"n = {n}, but greedy search has only one answer", "Choose sampling or a beam.")
    if isinstance(search, config.Beam) and n > search.size:
        raise InputError(f"n = {n} with a beam of {search.size}", "Ask for as many texts as the beam has at most.")
