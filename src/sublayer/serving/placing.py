"""Where the marks of a sentence stand in its translation.

A sentence with marks in it is translated whole, without them. Between two marks lies a segment of it; the translation
is cut into as many, in the same order, so that every mark stands there once and what was well nested still is. Where
it is cut is what the model's attention says: the words that it made while it looked at a segment should lie in that
segment, or at least in one within the same elements (of "los coches rojos", made of "the <b>red</b> cars", the first
two words are outside of any element, as "the" and "cars" are). The best cut of all is found by dynamic programming.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sublayer.serving.marked import Sentence
from sublayer.serving.markup import Mark, escaped

Floats = npt.NDArray[np.float64]
OWN = 0.5
"""What a word in its own segment is worth beside one in another within the same elements, which is worth 1."""
EMPTY = 2.0
"""What an element that had words and has none costs, in words."""


@dataclass(frozen=True)
class Aligned:
    """A translation and the sentence that it is of, token by token.

    source: the characters of the sentence that each of its tokens stands for. starts: where each token of the
    translation begins in its text. weights: [target tokens, source tokens], how much the model looked at each.
    """

    source: Sequence[tuple[int, int]]
    starts: Sequence[int]
    weights: Floats


@dataclass(frozen=True)
class Segment:
    """A part of a sentence, the elements that are open around it, the marks before it, and what it is kept as."""

    begin: int
    end: int
    within: tuple[tuple[int, int], ...]
    marks: tuple[Mark, ...]
    raw: str | None = None


def segments(sentence: Sentence) -> list[Segment]:
    """The parts of a sentence between its marks; what is kept is one of its own."""
    places = sorted({mark.at for mark in sentence.marks} | {at for k in sentence.kept for at in (k.begin, k.end)})
    raw = {k.begin: k.raw for k in sentence.kept}
    elements = _elements(sentence.marks)
    marks: dict[int, list[Mark]] = {}
    for mark in sentence.marks:
        marks.setdefault(mark.at, []).append(mark)

    def within(place: int) -> tuple[tuple[int, int], ...]:
        return tuple(each for each in elements if each[0] <= place < each[1])

    # The first is before all marks, those at its own place too.
    found = [Segment(0, min(places, default=len(sentence.text)), within(-1), ())]
    for begin, end in itertools.pairwise([*places, len(sentence.text)]):
        found.append(Segment(begin, end, within(begin), tuple(marks.get(begin, ())), raw.get(begin)))
    return found


def _elements(marks: Sequence[Mark]) -> list[tuple[int, int]]:
    """Where elements begin and end, each place once; -1 for one that was open before."""
    opened: dict[str, list[int]] = {}
    found: set[tuple[int, int]] = set()
    for mark in marks:
        if mark.kind == "open":
            opened.setdefault(mark.name, []).append(mark.at)
        elif mark.kind == "close":
            before = opened.get(mark.name)
            found.add((before.pop() if before else -1, mark.at))
    found |= {(place, 2**31) for places in opened.values() for place in places}
    return sorted(each for each in found if each[0] < each[1])


def needs_alignment(sentence: Sentence) -> bool:
    """Whether it matters where the translation is cut: not where all of it belongs to one segment."""
    if not sentence.html:
        return False
    spoken = [each for each in segments(sentence) if _spoken(sentence, each)]
    return len(spoken) > 1 or any(each.raw is not None for each in spoken)


def _spoken(sentence: Sentence, segment: Segment) -> bool:
    return bool(sentence.text[segment.begin : segment.end].strip())


def placed(sentence: Sentence, text: str, aligned: Aligned | None) -> str:
    """A translation as it stands in the reply, with the sentence's marks.

    Args:
        aligned: where `needs_alignment`.
    """
    if not sentence.html:
        return text
    parts = segments(sentence)
    if aligned is None:
        spoken = next((n for n, each in enumerate(parts) if _spoken(sentence, each)), 0)
        places = [0] * (spoken + 1) + [len(text)] * (len(parts) - spoken)
    else:
        starts = _units(sentence, text, aligned)
        costs = [EMPTY if (part.within or part.raw) and _spoken(sentence, part) else 0.0 for part in parts]
        cuts = best_cuts(_scores(parts, aligned, starts), costs)
        edges = [aligned.starts[start] if n else 0 for n, start in enumerate(starts)]
        places = [[*edges, len(text)][cut] for cut in cuts]
    return _written(text, parts, places)


def _units(sentence: Sentence, text: str, aligned: Aligned) -> list[int]:
    """The tokens of the translation that it may be cut before: those that begin words, and where a word of the
    sentence is cut by a mark, all of them."""
    marks = {segment.begin for segment in segments(sentence)[1:]}
    inside = any(_in_word(sentence.text, place) for place in marks)
    return [n for n, start in enumerate(aligned.starts) if n == 0 or inside or not _in_word(text, start)]


def _in_word(text: str, place: int) -> bool:
    """Whether a word goes on across a place; in scripts without spaces it does nowhere."""
    if not 0 < place < len(text):
        return False
    sides = text[place - 1 : place + 1]
    return sides.isalnum() and not any(
        unicodedata.east_asian_width(c) in "WF" or "\u0e00" <= c <= "\u0eff" for c in sides
    )


def _scores(parts: Sequence[Segment], aligned: Aligned, starts: Sequence[int]) -> Floats:
    """What each unit is worth in each segment."""
    begins, ends = np.asarray(aligned.source, np.float64).reshape(-1, 2).T[:, :, None]
    first, last = (np.array([getattr(part, name) for part in parts], np.float64) for name in ("begin", "end"))
    shared = np.maximum(np.minimum(ends, last) - np.maximum(begins, first), 0.0)
    of_tokens = shared / np.maximum(ends - begins, 1.0)
    # Heads are averaged, so that a little is looked at everywhere: what is looked at most should count.
    weights = aligned.weights**2
    weights = weights * (of_tokens.sum(axis=1) > 0)
    weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-30)
    own = np.add.reduceat(weights @ of_tokens, np.asarray(starts), axis=0)
    own /= np.diff([*starts, len(weights)])[:, None]
    kinds: dict[object, int] = {}
    numbers = np.array([kinds.setdefault(part.within if part.raw is None else part, len(kinds)) for part in parts])
    return own @ (numbers[:, None] == numbers) + OWN * own


def best_cuts(scores: Floats, costs: Sequence[float]) -> list[int]:
    """The units before which the segments begin, and the number of units: as many in each as is worth the most.

    Args:
        scores: [units, segments], what a unit is worth in a segment. costs: of a segment that has none.
    """
    count = len(scores)
    before = np.full(count + 1, -np.inf)
    before[0] = 0.0
    back: list[npt.NDArray[np.int64]] = []
    for column, cost in enumerate(costs):
        worth = np.concatenate([[0.0], np.cumsum(scores[:, column])])
        # The best beginning that is before each end, for segments with a unit or more.
        gained = before - worth
        best = np.maximum.accumulate(gained)
        first = np.maximum.accumulate(np.where(gained == best, np.arange(count + 1), 0))
        some = np.concatenate([[-np.inf], best[:-1]]) + worth
        empty = before - cost
        before = np.maximum(some, empty)
        back.append(np.where(some > empty, np.concatenate([[0], first[:-1]]), np.arange(count + 1)))
    cuts = [count]
    for step in reversed(back):
        cuts.append(int(step[cuts[-1]]))
    return cuts[::-1]


def _written(text: str, parts: Sequence[Segment], places: Sequence[int]) -> str:
    """The text with everything in its place: what closes stands before the white space, all else after it."""
    out: list[str] = []
    done = 0
    waiting: list[Mark] = []

    def settle(place: int) -> None:
        nonlocal done
        left = len(text[:place].rstrip()) if place else 0
        right = place + len(text[place:]) - len(text[place:].lstrip())
        closing = next((n for n, mark in enumerate(waiting) if mark.kind != "close"), len(waiting))
        left, right = max(left, done), max(right, done)
        out.extend([escaped(text[done:left]), *(mark.raw for mark in waiting[:closing])])
        if waiting[closing:]:
            out.append(escaped(text[left:right]))
            out.extend(mark.raw for mark in waiting[closing:])
            left = right
        done = left
        waiting.clear()

    for number, part in enumerate(parts):
        begin, end = places[number], places[number + 1]
        waiting.extend(part.marks)
        if part.raw is not None and begin == end:
            waiting.append(Mark(begin, _spaced(part.raw, text, begin), "void"))
        elif part.raw is not None:
            # In the place of what its words have become.
            waiting.append(Mark(begin, part.raw, "void"))
            settle(begin)
            done = max(done, begin + len(text[begin:end].rstrip()))
        elif begin < end:
            settle(begin)
    settle(len(text))
    return "".join([*out, escaped(text[done:])])


def _spaced(raw: str, text: str, place: int) -> str:
    """What is kept and has become nothing, put between words."""
    before, after = text[:place], text[place:]
    left = " " if before[-1:].isalnum() and (not after or not after[:1].isspace()) else ""
    return left + raw + (" " if after.lstrip()[:1].isalnum() else "")
