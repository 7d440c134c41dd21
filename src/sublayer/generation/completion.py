"""What a generator gives back: texts that go on from prompts, whole or piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

from sublayer.generation.loop import Ending
from sublayer.generation.unfolding import Unfolding

Prompt: TypeAlias = str | Sequence[int]
"""A text, or its tokens."""


@dataclass(frozen=True)
class Completion:
    """One text that goes on from a prompt.

    text: without the prompt, cut before a stop string. tokens: all that were chosen (those that make up the stop string
    among them), without the end token. ended: by an end token, a stop string, or its length limit.
    log_probabilities: of each token, and of the end token if it came; natural logs, of the model's own distribution,
    before constraints, temperature and cuts. None unless asked for.
    """

    text: str
    tokens: list[int]
    ended: Ending
    log_probabilities: list[float] | None = None

    @classmethod
    def of(cls, text: Unfolding, scored: bool) -> Self:
        """What has unfolded to its end."""
        assert text.ended is not None, "the text is not at its end yet"
        return cls(text.text, text.tokens, text.ended, text.log_probabilities if scored else None)

    @property
    def log_probability(self) -> float | None:
        """Of the whole text, given the prompt."""
        return None if self.log_probabilities is None else sum(self.log_probabilities)


@dataclass(frozen=True)
class Generated:
    """What was made of one prompt: one text or n, best first where beam search ranked them.

    prompt_tokens: as the model read them.
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
    """A text piece by piece, as it is made; `completion` is the whole of it, when the pieces have come to their end."""

    def __init__(self, growing: Iterator[None], text: Unfolding, scored: bool) -> None:
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
        """What has been made so far."""
        return self._text.text

    @property
    def completion(self) -> Completion:
        return Completion.of(self._text, self._scored)
