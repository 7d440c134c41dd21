"""HTML in parts: what stays as it is, and flows of text with the markup inside of them.

A flow is what is read as one text: it ends where a block (a paragraph, a cell, a line break) begins or ends, while tags
inside of sentences (`<b>`, `<a>`, `<img>`) are marks in it, each with its place. What is not for readers (scripts,
styles, code) and what says `translate="no"` is kept as it is; where it stands inside of a sentence, its words are part
of what is translated, so that the sentence is whole, and what they have become is put back (`placing.py`). It is read
by the standard library's parser, which takes any text.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from typing import Literal

INLINE = frozenset(
    [
        *("a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "data", "del", "dfn", "em", "font", "i", "img"),
        *("ins", "label", "mark", "meter", "output", "q", "ruby", "s", "small", "span", "strike", "strong", "sub"),
        *("sup", "svg", "time", "tt", "u", "wbr", "code", "kbd", "samp", "var", "math", "script", "style", "template"),
    ]
)
"""Tags that may stand inside of a sentence; any other ends it."""
KEPT = frozenset({"script", "style", "code", "pre", "kbd", "samp", "var", "math", "svg", "textarea", "template"})
UNSEEN = frozenset({"script", "style", "template", "svg", "math"})
"""Of those that are kept, what no reader reads as words."""
VOID = frozenset(["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"])
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

    def without_words(self, wanted: Kept) -> None:
        """What is kept is no longer a part of the text."""
        begin, end, raw = wanted.begin, wanted.end, wanted.raw
        if self.text[:begin].endswith(" ") and self.text[end:].startswith(" "):
            end, raw = end + 1, raw + " "

        def moved(place: int) -> int:
            return place if place <= begin else max(begin, place - (end - begin))

        place = next((n for n, mark in enumerate(self.marks) if mark.at >= wanted.end), len(self.marks))
        self.text = self.text[:begin] + self.text[end:]
        self.marks = [replace(mark, at=moved(mark.at)) for mark in self.marks]
        self.marks.insert(place, Mark(begin, raw, "void"))
        self.kept = [Kept(moved(k.begin), moved(k.end), k.raw) for k in self.kept if k is not wanted]


class _Parts(HTMLParser):
    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=False)
        self.parts: list[str | Flow] = []
        self._flow = Flow()
        self._open: list[str] = []
        self._kept: int | None = None  # how many tags are open around what is kept
        self._raw: list[str] = []  # of what is kept
        self._words: list[str] = []
        self._whole = True  # whether what is kept may stand inside of a sentence
        self._seen = True  # and readers see words in it
        self._text: list[str] = []
        self.feed(source)
        self.close()
        self._end_kept()
        self._break()

    # --- what is found

    def _found_text(self, raw: str) -> None:
        if self._kept is None:
            self._text.append(raw)
        else:
            self._raw.append(raw)
            self._words.append(raw)

    def _found_mark(self, raw: str, kind: Kind, name: str = "") -> None:
        if self._kept is not None:
            self._raw.append(raw)
            self._whole = self._whole and (not name or name in INLINE)
        elif not name or name in INLINE:
            self._take_text()
            self._flow.add_mark(raw, kind, name)
        else:
            self._break()
            self.parts.append(raw)

    def _take_text(self) -> None:
        # Whole runs at once: "&am" and "p;" are one entity.
        raw, self._text = "".join(self._text), []
        if raw:
            self._flow.add_text(raw)

    def _break(self) -> None:
        """A flow ends."""
        self._take_text()
        flow, self._flow = self._flow, Flow()
        if flow.text:
            flow.end()
            self.parts.append(flow)
        elif flow.source:
            self.parts.append(flow.source)

    def _end_kept(self) -> None:
        if self._kept is None:
            return
        raw, words = "".join(self._raw), html.unescape("".join(self._words)) if self._seen else ""
        self._kept, self._raw, self._words = None, [], []
        if self._whole:
            self._take_text()
            self._flow.add_kept(raw, words)
        else:
            self._break()
            self.parts.append(raw)

    # --- HTMLParser's own

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        raw = self.get_starttag_text() or ""
        if tag in VOID:
            self._found_mark(raw, "void", tag)
            return
        said = dict(attrs)
        kept = tag in KEPT or said.get("translate") == "no" or "notranslate" in (said.get("class") or "").split()
        if kept and self._kept is None:
            self._kept, self._raw, self._words = len(self._open), [raw], []
            self._whole, self._seen = tag in INLINE, tag not in UNSEEN
        else:
            self._found_mark(raw, "open", tag)
        self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._found_mark(self.get_starttag_text() or "", "void", tag)

    def handle_endtag(self, tag: str) -> None:
        raw = f"</{tag}>"
        # Ends what it can: a tag that was never opened ends nothing.
        place = next((n for n in range(len(self._open) - 1, -1, -1) if self._open[n] == tag), None)
        if place is not None:
            del self._open[place:]
            if self._kept is not None and place <= self._kept:
                if place == self._kept:
                    self._raw.append(raw)
                    self._end_kept()
                    return
                self._end_kept()
        self._found_mark(raw, "close", tag)

    def handle_data(self, data: str) -> None:
        self._found_text(data)

    def handle_entityref(self, name: str) -> None:
        self._found_text(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self._found_text(f"&#{name};")

    def handle_comment(self, data: str) -> None:
        self._found_mark(f"<!--{data}-->", "void")

    def handle_decl(self, decl: str) -> None:
        self._found_mark(f"<!{decl}>", "void", "!")

    def handle_pi(self, data: str) -> None:
        self._found_mark(f"<?{data}>", "void")

    def unknown_decl(self, data: str) -> None:
        self._found_mark(f"<![{data}]>", "void")


def parts(source: str) -> list[str | Flow]:
    """The parts of a piece of HTML, in order: texts that stay as they are, and flows."""
    return _Parts(source).parts


def escaped(text: str) -> str:
    """A text as HTML writes it."""
    return html.escape(text, quote=False)
