"""HTML in tokens: texts, tags, comments. Put together they are the source, whatever it is, and they are found in a time
that grows with its length.

Python's own parser keeps neither promise: it writes end tags anew, and of a text of many tags that do not end it looks
through the rest for each of them. As in the standard (https://html.spec.whatwg.org, 13.2.5), what has no end reaches to
the end of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import unescape
from typing import Literal

RAW = frozenset({"script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes"})
"""Elements in which nothing is a tag but their own end."""
VOID = frozenset(["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"])
"""Elements that have no end."""

Kind = Literal["text", "open", "close", "void", "comment"]
_TAG = re.compile(r"<(/?)([A-Za-z][^\s/>]*+)")
_ATTRIBUTE = re.compile(
    r"""[\s/]*+([^\s/>][^\s/>=]*+)(?:\s*+=\s*+(?:"([^"]*+)"|'([^']*+)'|([^\s>"'][^\s>]*+|(?=[\s>]))))?"""
)
_END = re.compile(r"[\s/]*+>")


@dataclass(frozen=True)
class Token:
    """A part of the source, as it stands there.

    name: of a tag, in small letters; "!doctype" of a comment that is one. attributes: of a tag that begins something.
    """

    kind: Kind
    raw: str
    name: str = ""
    attributes: dict[str, str] = field(default_factory=dict[str, str])


def tokens(source: str) -> Iterator[Token]:
    """The tokens of a piece of HTML, in order."""
    done = place = 0
    while (begin := source.find("<", place)) >= 0:
        found = _token(source, begin)
        if found is None:
            place = begin + 1
            continue
        if begin > done:
            yield Token("text", source[done:begin])
        yield found
        done = place = begin + len(found.raw)
        if found.kind == "open" and found.name in RAW:
            end = re.compile(rf"</{found.name}(?=[\s/>])", re.IGNORECASE).search(source, done)
            place = end.start() if end else len(source)
    if done < len(source):
        yield Token("text", source[done:])


def _token(source: str, begin: int) -> Token | None:
    """What begins with "<" at a place; None where it is a sign as others."""
    tag = _TAG.match(source, begin)
    if tag is not None:
        return _tag(source, begin, bool(tag[1]), tag[2].lower(), tag.end())
    if source.startswith("<!--", begin):
        end = source.find("-->", begin + 2)
        return Token("comment", source[begin : end + 3 if end >= 0 else None])
    if source.startswith(("<!", "<?", "</"), begin):
        end = source.find(">", begin)
        raw = source[begin : end + 1 if end >= 0 else None]
        return Token("comment", raw, "!doctype" if raw[:9].lower() == "<!doctype" else "")
    return None


def _tag(source: str, begin: int, ends: bool, name: str, place: int) -> Token:
    attributes: dict[str, str] = {}
    while (found := _ATTRIBUTE.match(source, place)) is not None:
        value = next((each for each in found.groups()[1:] if each is not None), "")
        # Of one that stands twice the first counts.
        attributes.setdefault(found[1].lower(), unescape(value))
        place = found.end()
    end = _END.match(source, place)
    if end is None:
        return Token("comment", source[begin:])
    raw = source[begin : end.end()]
    kind: Kind = "close" if ends else "void" if name in VOID or raw.endswith("/>") else "open"
    return Token(kind, raw, name, {} if ends else attributes)
