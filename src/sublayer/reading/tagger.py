"""A label for each word of a text: that of the word's first token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

from sublayer import config
from sublayer.errors import InputError
from sublayer.reading.reader import Progress, Reader


@dataclass(frozen=True)
class Tagged:
    """The words of one sentence, the tag of each, and how probable it is."""

    words: list[str]
    tags: list[str]
    probabilities: list[float]


class Tagger(Reader[config.Tagging]):
    """A model with a tagging head and its tokenizer."""

    needs: ClassVar = config.Tagging

    def tag(
        self,
        sentences: Sequence[str | Sequence[str]],
        *,
        batch_tokens: int = 8000,
        progress: Progress | None = None,
    ) -> list[Tagged]:
        """The tags of sentences, in order. A sentence is a list of words, or a string that is split at
        tabs and ASCII spaces.

        Raises:
            InputError: a sentence has no word, a word has no token, or a sentence is too long for the model.
        """
        labels = self.head.labels
        words = [
            [word for word in re.split("[\t\n ]", sentence) if word] if isinstance(sentence, str) else list(sentence)
            for sentence in sentences
        ]
        encoded = self.tokenizer.encode_words(words)
        firsts: list[list[int]] = []
        for number, (sentence, tokens) in enumerate(zip(words, encoded, strict=True), start=1):
            place = tokens.firsts
            missing = [word for index, word in enumerate(sentence) if index not in place]
            if missing:
                raise InputError(
                    f"sentence {number}: the word '{missing[0]}' has no token of its own", "Leave it out or join it."
                )
            firsts.append([place[index] for index in range(len(sentence))])
        found: list[Tagged | None] = [None] * len(words)
        each = self._each(encoded, batch_tokens=batch_tokens, progress=progress, what="sentence")
        for rows, scores in each:
            probability, best = scores.float().softmax(dim=-1).max(dim=-1)
            surely = cast("list[list[float]]", probability.tolist())
            for row, sure, tag in zip(rows, surely, cast("list[list[int]]", best.tolist()), strict=True):
                at = firsts[row]
                found[row] = Tagged(words[row], [labels[tag[i]] for i in at], [sure[i] for i in at])
        return [one for one in found if one is not None]
