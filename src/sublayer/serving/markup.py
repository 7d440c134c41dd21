"""HTML in parts: what stays as it is, and flows of text with the markup inside of them.

A flow is what is read as one text: it ends where a block (a paragraph, a cell, a line break) begins or ends, while tags
inside of sentences (`<b>`, `<a>`, `<img>`) are marks in it, each with its place. What is not for readers (scripts,
styles, code) and what says `translate="no"` is kept as it is; where it stands inside of a sentence, its words are part
of what is translated, so that the sentence is whole, and what they have become is put back (`placing.py`).
"""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Literal

from sublayer.serving.html_tokens import Token, tokens

INLINE = frozenset(
    [
        *("a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "data", "del", "dfn", "em", "font", "i", "img"),
        *("ins", "label", "mark", "meter", "output", "q", "ruby", "s", "small", "span", "strike", "strong", "sub"),
        *("sup", "svg", "time", "tt", "u", "wbr", "code", "kbd", "samp", "var", "math", "script", "style", "template"),
    ]
)
"""Tags that may stand inside of a sentence; any other ends it."""
KEPT = frozenset(
    [
        *("script", "style", "code", "pre", "kbd", "samp", "var", "math", "svg", "textarea", "template"),
        *("xmp", "iframe", "noembed", "noframes"),
    ]
)
UNSEEN = frozenset({"script", "style", "template", "svg", "math"})
"""Of those that are kept, what no reader reads as words."""
SHORT = 60
"""Characters of kept words that are put into the sentence around them; more of them are no part of a sentence."""
_SPACE = re.compile(r"[ \t\n\f\r]+")
"""HTML's white space; a no-break space is a letter like others."""

Kind = Literal["open", "close", "void"]


@dataclass(frozen=True)
class Mark:
    """A tag or a comment, before the character `at`."""

    at: int
    raw: str
    kind: Kind
    name: str = ""


@dataclass(frozen=True)
class Kept:
    """The characters from `begin` (included) to `end` (excluded) are kept, as `raw`."""

    begin: int
    end: int
    raw: str


@dataclass
class Flow:
    """A text with marks in it. Of its white space, of which HTML takes much as one, one character is left.

    source: as it was, markup and all. text: its characters stand for themselves. before, after: the white space around
    it, as it was.
    """

    source: str = ""
    text: str = ""
    before: str = ""
    after: str = ""
    marks: list[Mark] = field(default_factory=list[Mark])
    kept: list[Kept] = field(default_factory=list[Kept])

    def add_text(self, raw: str) -> None:
        self.source += raw
        self._add(html.unescape(raw))

    def add_mark(self, raw: str, kind: Kind, name: str = "") -> None:
        self.source += raw
        self.marks.append(Mark(len(self.text), raw, kind, name))

    def add_kept(self, raw: str, words: str) -> None:
        plain = " ".join(words.split())
        if not 0 < len(plain) <= SHORT:
            self.add_mark(raw, "void")
            return
        if words[0].isspace():
            self._add(" ")
        self.source += raw
        self.kept.append(Kept(len(self.text), len(self.text) + len(plain), raw))
        self.text += plain
        if words[-1].isspace():
            self._add(" ")

    def _add(self, text: str) -> None:
        if not self.text:
            lead = _SPACE.match(text)
            self.before += lead[0] if lead else ""
            text = text[lead.end() :] if lead else text
        plain = _SPACE.sub(" ", text)
        if plain.startswith(" ") and self.text.endswith(" "):
            plain = plain[1:]
            last = self.marks[-1] if self.marks else None
            if last is not None and last.kind == "void" and last.at == len(self.text):
                # A picture stands between two spaces, and both are seen.
                self.marks[-1] = replace(last, raw=last.raw + " ")
        self.text += plain

    def end(self) -> None:
        """White space at its end is taken off."""
        bare = self.text.rstrip(" ")
        self.after = self.text[len(bare) :]
        self.text = bare
        self.marks = [replace(mark, at=min(mark.at, len(bare))) for mark in self.marks]

    def without_words(self, wanted: Collection[Kept]) -> None:
        """What these are is no longer a part of the text."""
        gone: list[tuple[int, int]] = []  # where characters were taken out, now, and how many until then
        begins: list[int] = []  # the same place before
        parts: list[str] = []
        marks = list(self.marks)
        done = taken = 0
        for each in self.kept:
            if each not in wanted:
                continue
            end, raw = each.end, each.raw
            if self.text[: each.begin].endswith(" ") and self.text[end : end + 1] == " ":
                end, raw = end + 1, raw + " "
            parts.append(self.text[done : each.begin])
            begins.append(each.begin)
            gone.append((each.begin - taken, taken + end - each.begin))
            taken += end - each.begin
            marks.append(Mark(each.begin, raw, "void"))
            done = end

        def moved(place: int) -> int:
            before = bisect_right(begins, place - 1)
            if not before:
                return place
            # Between words that went and the space that went with them something may stand.
            begin, count = gone[before - 1]
            return max(begin, place - count)

        # Of those at one place what was kept comes last: marks stood before it.
        marks.sort(key=lambda mark: mark.at)
        self.text = "".join([*parts, self.text[done:]])
        self.marks = [replace(mark, at=moved(mark.at)) for mark in marks]
        self.kept = [Kept(moved(k.begin), moved(k.end), k.raw) for k in self.kept if k not in wanted]


class _Parts:
    """Reads tokens. Of what is open only the names are held, and of what is kept how much is open around it."""

    def __init__(self, source: str) -> None:
        self.parts: list[str | Flow] = []
        self._flow = Flow()
        self._open: list[str] = []
        self._count: Counter[str] = Counter()
        self._around: int | None = None
        self._raw: list[str] = []
        self._words: list[str] = []
        self._whole = True  # whether what is kept may stand inside of a sentence
        self._seen = True  # and readers see words in it
        for token in tokens(source):
            self._read(token)
        self._end_kept()
        self._break()

    def _read(self, token: Token) -> None:
        if token.kind == "text":
            self._found_text(token.raw)
        elif token.kind == "open":
            self._found_open(token)
        elif token.kind == "close":
            self._found_close(token)
        else:
            self._found_mark(token.raw, "void", token.name)

    def _found_text(self, raw: str) -> None:
        if self._around is None:
            self._flow.add_text(raw)
        else:
            self._raw.append(raw)
            self._words.append(raw)

    def _found_mark(self, raw: str, kind: Kind, name: str) -> None:
        if self._around is not None:
            self._raw.append(raw)
            self._whole = self._whole and (not name or name in INLINE)
        elif not name or name in INLINE:
            self._flow.add_mark(raw, kind, name)
        else:
            self._break()
            self.parts.append(raw)

    def _found_open(self, token: Token) -> None:
        name, said = token.name, token.attributes
        kept = name in KEPT or said.get("translate") == "no" or "notranslate" in said.get("class", "").split()
        if kept and self._around is None:
            self._around, self._raw, self._words = len(self._open), [token.raw], []
            self._whole, self._seen = name in INLINE, name not in UNSEEN
        else:
            self._found_mark(token.raw, "open", name)
        self._open.append(name)
        self._count[name] += 1

    def _found_close(self, token: Token) -> None:
        # Ends what it can: a tag that was never opened ends nothing.
        if self._count[token.name]:
            while True:
                last = self._open.pop()
                self._count[last] -= 1
                if last == token.name:
                    break
            if self._around == len(self._open):
                self._raw.append(token.raw)
                self._end_kept()
                return
            if self._around is not None and self._around > len(self._open):
                self._end_kept()
        self._found_mark(token.raw, "close", token.name)

    def _break(self) -> None:
        """A flow ends."""
        flow, self._flow = self._flow, Flow()
        if flow.text:
            flow.end()
            self.parts.append(flow)
        elif flow.source:
            self.parts.append(flow.source)

    def _end_kept(self) -> None:
        if self._around is None:
            return
        raw, words = "".join(self._raw), html.unescape("".join(self._words)) if self._seen else ""
        self._around = None
        if self._whole:
            self._flow.add_kept(raw, words)
        else:
            self._break()
            self.parts.append(raw)


def parts(source: str) -> list[str | Flow]:
    """The parts of a piece of HTML, in order: texts that stay as they are, and flows."""
    return _Parts(source).parts


def escaped(text: str) -> str:
    """A text as HTML writes it."""
    return html.escape(text, quote=False)
