"""F1 of tagged spans, by the rule of conlleval and of seqeval's default mode.

A tag is a letter for the place in a span, a hyphen and the span's kind, such as B-PER; "O" is outside. Letters are B
(begins), I (inside), E (ends) and S (single), so that IOB1, IOB2, IOE and IOBES are all read. Tags that no scheme
allows are read too: I-PER after O begins a span, and a change of the kind begins another.

Sources: E. F. Tjong Kim Sang, conlleval.pl (CoNLL-2000); H. Nakayama, seqeval (2018).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

OUTSIDE = "O"


@dataclass(frozen=True, order=True)
class Span:
    """Words `first` to `last`, both of the span, of one kind."""

    kind: str
    first: int
    last: int


def spans(tags: Sequence[str]) -> list[Span]:
    """The spans of a sentence, in order.

    >>> spans(["B-PER", "I-PER", "O", "B-LOC"])
    [Span(kind='PER', first=0, last=1), Span(kind='LOC', first=3, last=3)]
    """
    found: list[Span] = []
    first = 0
    before, kind_before = OUTSIDE, ""
    for place, tag in enumerate([*tags, OUTSIDE]):
        letter, kind = _read(tag)
        if before != OUTSIDE and _ends(before, letter, kind != kind_before):
            found.append(Span(kind_before, first, place - 1))
        if letter != OUTSIDE and _begins(before, letter, kind != kind_before):
            first = place
        before, kind_before = letter, kind
    return found


def _read(tag: str) -> tuple[str, str]:
    """Letter and kind of a tag; a tag that is a letter alone has the kind "_"."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    return tag[0], tag[1:].split("-", 1)[-1] or "_"


def _ends(before: str, letter: str, other_kind: bool) -> bool:
    """Whether a span that the word before was in ends with it."""
    return before in "ES" or letter in "BSO" or other_kind


def _begins(before: str, letter: str, other_kind: bool) -> bool:
    """Whether a span begins at a word that is in one."""
    return letter in "BS" or before in "ESO" or other_kind


@dataclass(frozen=True)
class SpanScore:
    """right: spans found with exactly their words and kind. found, true: all that were found, all that there are."""

    right: int
    found: int
    true: int

    @property
    def f1(self) -> float:
        """2 P R / (P + R); 0 where there are no spans at all."""
        return 2 * self.right / (self.found + self.true) if self.found + self.true else 0.0


def span_scores(true: Iterable[Sequence[str]], found: Iterable[Sequence[str]]) -> dict[str, SpanScore]:
    """The score of each kind of span, by name, over all sentences."""
    counts: dict[str, list[int]] = {}
    for wanted, given in zip(true, found, strict=True):
        one, other = set(spans(wanted)), set(spans(given))
        for place, some in enumerate((one & other, other, one)):
            for span in some:
                counts.setdefault(span.kind, [0, 0, 0])[place] += 1
    return {kind: SpanScore(*counts[kind]) for kind in sorted(counts)}


def together(scores: Iterable[SpanScore]) -> SpanScore:
    """All kinds as one: the micro average."""
    several = list(scores)
    return SpanScore(*(sum(getattr(one, name) for one in several) for name in ("right", "found", "true")))
