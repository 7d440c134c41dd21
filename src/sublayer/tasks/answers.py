"""Answers that a model gives in conversations, beside those that it should give."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sublayer import config
from sublayer.data.tables.conversations import ANSWERS, Conversation
from sublayer.generation.generator import Generator

MORE = 8
"""Tokens beyond the longest answer that is expected: whatever is longer is another one."""


@dataclass(frozen=True)
class Answer:
    """asked: the messages before the last answer. expected: that answer. answer: the model's own. cut: whether what was
    asked was too long for the model, and lost its beginning."""

    asked: list[dict[str, str]]
    expected: str
    answer: str
    cut: bool


@dataclass(frozen=True)
class AnswerScores:
    """Parts of `count` answers: those that are as expected, and those that are but for case and what stands around."""

    exact: float
    folded: float
    count: int


def answers(
    generator: Generator[Any], talks: Sequence[Conversation], *, progress: Callable[[int], None] | None = None
) -> list[Answer]:
    """The last answer of each conversation, by greedy search, given all that was said before it.

    It is cut a few tokens beyond the longest answer that is expected of any. Of a conversation that leaves no room for
    that in the model's context, the beginning is not read.

    Raises:
        InputError: the model carries no chat template.
    """
    asked: list[list[dict[str, str]]] = []
    expected: list[str] = []
    for talk in talks:
        messages = talk.plain["messages"]
        last = max(place for place, message in enumerate(messages) if message["role"] == ANSWERS)
        asked.append(messages[:last])
        expected.append(messages[last]["content"])
    longest = max(map(len, generator.tokenizer.encode(expected)))
    prompts = [generator.encode_chat(messages) for messages in asked]
    context = generator.model.config.max_length
    new = min(longest + MORE, context // 2)
    made = generator.generate(
        [prompt[-(context - new) :] for prompt in prompts],
        search=config.Greedy(),
        max_tokens=new,
        progress=progress,
    )
    cut = [len(prompt) > context - new for prompt in prompts]
    return [Answer(*each) for each in zip(asked, expected, (one.text for one in made), cut, strict=True)]


def score_answers(found: Sequence[str], expected: Sequence[str]) -> AnswerScores:
    """How many are the same. A text that only begins with what was expected is another one."""
    pairs = list(zip(found, expected, strict=True))
    exact = sum(one == other for one, other in pairs)
    folded = sum(_folded(one) == _folded(other) for one, other in pairs)
    return AnswerScores(exact / len(pairs), folded / len(pairs), len(pairs))


def _folded(text: str) -> str:
    return text.strip(string.punctuation + string.whitespace).casefold()
