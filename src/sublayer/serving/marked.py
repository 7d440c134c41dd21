"""Sentences with what stands in them: a text, or a flow of HTML, cut into what a model translates and what stays."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace

from sublayer.serving import sentences
from sublayer.serving.markup import Flow, Kept, Mark, escaped

Fits = Callable[[str], bool]
"""Whether a sentence is short enough for a model."""


@dataclass(frozen=True)
class Sentence:
    """What is translated at once.

    html: whether its translation is written as HTML. marks, kept: what stands in it, by its own characters.
    """

    text: str
    html: bool = False
    marks: tuple[Mark, ...] = ()
    kept: tuple[Kept, ...] = ()

    @property
    def has_words(self) -> bool:
        """Whether there is anything to translate in it."""
        place = 0
        for kept in (*self.kept, Kept(len(self.text), len(self.text), "")):
            if self.text[place : kept.begin].strip():
                return True
            place = kept.end
        return False

    @property
    def untranslated(self) -> str:
        """As it stands in the reply where nothing is translated."""
        if not self.html:
            return self.text
        # At one place marks stand in their order, and before the kept words that begin there.
        cuts = [(k.begin, 1, k.end, k.raw) for k in self.kept] + [(m.at, 0, m.at, m.raw) for m in self.marks]
        parts: list[str] = []
        place = 0
        for begin, _, end, raw in sorted(cuts, key=lambda cut: cut[:2]):
            parts += [escaped(self.text[place:begin]), raw]
            place = end
        return "".join([*parts, escaped(self.text[place:])])


Parts = list[str | Sentence]
"""What stays as it is, and sentences. Put together, with translations in the place of sentences, they are the reply."""


def of_text(text: str, fits: Fits) -> Parts:
    """A text in sentences, and the white space between them."""
    return [part for begin, end, after in _cut(text, fits) for part in (Sentence(text[begin:end]), text[end:after])]


def of_flow(flow: Flow, fits: Fits) -> Parts:
    """A flow in sentences, each with its marks, and what stands between them."""
    cuts = _cut(flow.text, fits)
    for last in (False, True):
        places = sorted({place for cut in cuts for place in cut})
        # Kept words are in one sentence, or in none. Without some of them sentences may end elsewhere.
        broken = {k for k in flow.kept if bisect_right(places, k.begin) < bisect_left(places, k.end)}
        if not broken:
            break
        flow.without_words(flow.kept if last else broken)
        cuts = _cut(flow.text, fits)
    marks, begins = _Marks(flow.marks), [k.begin for k in flow.kept]
    found: Parts = [flow.before]
    for begin, end, after in cuts:
        if end > begin:
            own = marks.before(end) + marks.until_opened(end)
            inside = flow.kept[bisect_left(begins, begin) : bisect_left(begins, end)]
            kept = [Kept(k.begin - begin, k.end - begin, k.raw) for k in inside]
            moved = [replace(mark, at=mark.at - begin) for mark in own]
            found.append(Sentence(flow.text[begin:end], True, tuple(moved), tuple(kept)))
        if after > end:
            between = Sentence(flow.text[end:after], True, tuple(
                replace(mark, at=mark.at - end) for mark in (*marks.before(after), *marks.until_closed(after))
            ))  # fmt: skip
            found.append(between.untranslated)
    return [*found, *(mark.raw for mark in marks.left), flow.after]


def _cut(text: str, fits: Fits) -> list[tuple[int, int, int]]:
    """Where sentences begin and end, and where the white space after them ends."""
    found: list[tuple[int, int, int]] = []
    place = 0
    for sentence, space in sentences.split(text):
        *before, (last, own) = sentences.fitted(sentence, fits)
        for part, after in (*before, (last, own + space)):
            end = place + len(part)
            found.append((place, end, end + len(after)))
            place = end + len(after)
    return found


class _Marks:
    """The marks of a flow, taken in their order."""

    def __init__(self, marks: list[Mark]) -> None:
        self._marks, self._next = marks, 0

    def before(self, place: int) -> list[Mark]:
        """Those before a place."""
        return self._until(bisect_left(self._marks, place, self._next, key=lambda mark: mark.at))

    def until_opened(self, place: int) -> list[Mark]:
        """Those at a sentence's end that belong to it: what is opened there is the next one's."""
        here = self._at(place)
        return self._until(next((n for n in here if self._marks[n].kind == "open"), here.stop))

    def until_closed(self, place: int) -> list[Mark]:
        """Those at a sentence's beginning that belong to what is before it."""
        here = self._at(place)
        return self._until(next((n + 1 for n in reversed(here) if self._marks[n].kind == "close"), here.start))

    @property
    def left(self) -> list[Mark]:
        return self._marks[self._next :]

    def _at(self, place: int) -> range:
        return range(self._next, bisect_right(self._marks, place, self._next, key=lambda mark: mark.at))

    def _until(self, end: int) -> list[Mark]:
        taken = self._marks[self._next : end]
        self._next = end
        return taken
