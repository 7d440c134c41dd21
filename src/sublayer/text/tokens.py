"""A text in tokens, with all that is known about each of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one text, or of a pair of texts, with what a template put around them; all lists are T long.

    Attributes:
        ids: token ids.
        token_type_ids: token types (BERT's segments): 0, or 1 for the second text and what belongs to it.
        spans: the characters of its own text that each token stands for, from (included) to (excluded); (0, 0) for a
            token that no text has.
        words: the number of the word that each token is of, counted from 0 in each text; None for what no text has.
        texts: which text each token is of: 0 or 1; None for what the template put there.
    """

    ids: list[int]
    token_type_ids: list[int]
    spans: list[tuple[int, int]]
    words: list[int | None]
    texts: list[int | None]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def firsts(self) -> dict[int, int]:
        """The first token of each word that has any, by the word's number."""
        return {word: place for place, word in reversed(list(enumerate(self.words))) if word is not None}

    def cut(self, longest: int) -> Tokens:
        """At most `longest` tokens: the last ones of the text are left out, of two texts those of the longer one, and
        never what a template put around them."""
        own: tuple[list[int], list[int]] = ([], [])
        for place, text in enumerate(self.texts):
            if text is not None:
                own[text].append(place)
        left_out: set[int] = set()
        for _ in range(min(len(self) - longest, len(own[0]) + len(own[1]))):
            left_out.add(own[len(own[1]) > len(own[0])].pop())
        return self.take([place for place in range(len(self)) if place not in left_out])

    def take(self, places: Sequence[int]) -> Tokens:
        """The tokens at these places alone."""
        return Tokens(*([getattr(self, each.name)[place] for place in places] for each in fields(self)))

    def within(self, ranges: Sequence[tuple[int, int]]) -> list[bool]:
        """For each token whether it begins inside one of `ranges`: characters, from (included) to (excluded).

        The ranges are in order and do not overlap. A token that begins before a range and reaches into it is not
        inside; one that stands for no character is not either.
        """
        starts = [start for start, _ in ranges]
        inside: list[bool] = []
        for begin, end in self.spans:
            place = bisect_right(starts, begin) - 1
            inside.append(place >= 0 and begin < end and begin < ranges[place][1])
        return inside


def joined(words: Sequence[str]) -> tuple[str, list[int]]:
    """Words with a space between each two, and where each of them begins."""
    places = accumulate((len(word) + 1 for word in words), initial=0)
    return " ".join(words), list(places)[:-1]


def by_words(tokens: Tokens, text: str, starts: Sequence[int]) -> Tokens:
    """`tokens` of `text`, with `words` counted by `starts`, where the words of `text` begin.

    A token that holds the space before a word is of that word.
    """
    words: list[int | None] = []
    for (begin, end), source in zip(tokens.spans, tokens.texts, strict=True):
        if source is None:
            words.append(None)
            continue
        while begin < end and text[begin] == " ":
            begin += 1
        words.append(max(0, bisect_right(starts, begin) - 1))
    return replace(tokens, words=words)
