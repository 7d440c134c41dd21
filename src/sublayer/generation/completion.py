"""The results of a generator: whole texts, or a stream of pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

from sublayer.generation.loop import Ending
from sublayer.generation.partial_completion import PartialCompletion

Prompt: TypeAlias = str | Sequence[int]
"""A text, or its tokens."""


@dataclass(frozen=True)
class Completion:
    """One generated text.

    text: without the prompt, cut before a stop string. tokens: all generated tokens (also those of the stop string),
    without the end token. ended: "end" (end token), "stop" (stop string) or "length" (limit).
    log_probabilities: natural log for each token, and for the end token if there is one, from the model's own
    distribution, before constraints, temperature, top-k and the like. None unless asked for.
    """

    text: str
    tokens: list[int]
    ended: Ending
    log_probabilities: list[float] | None = None

    @classmethod
    def of(cls, text: PartialCompletion, scored: bool) -> Self:
        """What is complete."""
        assert text.ended is not None, "the text is not at its end yet"
        return cls(text.text, text.tokens, text.ended, text.log_probabilities if scored else None)

    @property
    def log_probability(self) -> float | None:
        """Log-probability of the whole text, given the prompt."""
        return None if self.log_probabilities is None else sum(self.log_probabilities)


@dataclass(frozen=True)
class Generated:
    """The result for one prompt: n texts; after beam search, best first.

    prompt_tokens: the prompt as the model read it.
    """

    prompt: Prompt
    prompt_tokens: list[int]
    completions: list[Completion]

    @property
    def best(self) -> Completion:
        return self.completions[0]

    @property
    def text(self) -> str:
        return self.best.text

    @property
    def tokens(self) -> list[int]:
        return self.best.tokens


class Stream(Iterator[str]):
    """An iterator over the pieces of a text while it is generated. `completion`: the whole, after the last piece."""

    def __init__(self, growing: Iterator[None], text: PartialCompletion, scored: bool) -> None:
        self._growing, self._text, self._scored = growing, text, scored
        self._shown = 0

    def __next__(self) -> str:
        while len(self._text.text) == self._shown:
            next(self._growing)
        piece = self._text.text[self._shown :]
        self._shown = len(self._text.text)
        return piece

    @property
    def text(self) -> str:
        """The text so far."""
        return self._text.text

    @property
    def completion(self) -> Completion:
        return Completion.of(self._text, self._scored)
