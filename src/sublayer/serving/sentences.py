"""A text in sentences, and back: what lies between them (spaces, line feeds, empty lines) stays as it was.

A line is a paragraph. Sentences end where a mark that ends one is followed by a space and by what may begin another;
after an abbreviation, an initial or a number none ends. Chinese and Japanese marks need no space.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_ABBREVIATIONS = frozenset(
    [
        "mr",
        "mrs",
        "ms",
        "dr",
        "prof",
        "sr",
        "jr",
        "st",
        "vs",
        "etc",
        "cf",
        "ca",
        "no",
        "vol",
        "fig",
        "al",
        "e.g",
        "i.e",
        "eg",
        "ie",
        "inc",
        "ltd",
        "co",
        "corp",
        "dept",
        "est",
        "approx",
        "sra",
        "srta",
        "ud",
        "uds",
        "ee",
        "uu",
        "av",
        "pág",
        "núm",
        "art",
        "gen",
        "col",
        "lic",
        "ing",
        "z.b",
        "bzw",
        "usw",
        "vgl",
        "nr",
        "str",
        "evtl",
        "ggf",
        "m",
        "mme",
        "mlle",
    ]
)
_END = re.compile(
    r"""[.!?…]+["'”’»)\]]*(?=\s+["'“‘«¿¡(\[]*[^\W\d_a-zà-öø-ÿ]|\s+["'“‘«(\[]*\d|\s*$)|[。！？]+[」』”’）]*"""
)
_LINES = re.compile(r"([^\n\r]*)((?:\r\n|\n|\r)*)")
_CUTS = (re.compile(r"[;:—][\s]+"), re.compile(r",\s+|，|、"), re.compile(r"\s+"))


def split(text: str) -> list[tuple[str, str]]:
    """The sentences of a text in order, each with the white space after it; the first may be empty, with what stands
    before the first sentence. Put together they are the text.

    >>> split(" How are you?  Fine.\\n\\nBye!")
    [('', ' '), ('How are you?', '  '), ('Fine.', '\\n\\n'), ('Bye!', '')]
    """
    found: list[tuple[str, str]] = []
    for line, after in _LINES.findall(text):
        if line or after:
            pieces = _pieces(line)
            last, space = pieces[-1]
            found += [*pieces[:-1], (last, space + after)]
    return found


def _pieces(line: str) -> list[tuple[str, str]]:
    """The sentences of one line, each with the white space after it."""
    found: list[tuple[str, str]] = []
    start = len(line) - len(line.lstrip())
    if start or not line:
        found.append(("", line[:start]))
    for mark in _END.finditer(line, start):
        if not _abbreviates(line[start : mark.end()]):
            found.append(_spaced(line, start, mark.end()))
            start = mark.end() + len(found[-1][1])
    if start < len(line):
        found.append(_spaced(line, start, len(line.rstrip())))
    return found


def _spaced(line: str, start: int, end: int) -> tuple[str, str]:
    after = line[end:]
    return line[start:end], after[: len(after) - len(after.lstrip())]


def _abbreviates(sentence: str) -> bool:
    """Whether the mark at the end is that of an abbreviation, an initial or the number of a list."""
    if not sentence.endswith("."):
        return False
    word = sentence[:-1].rpartition(" ")[2].lstrip("(\"'“‘«[")
    return (
        word.lower() in _ABBREVIATIONS
        or bool(re.fullmatch(r"[A-Z]|(?:[A-Za-z]\.)+[A-Za-z]", word))
        or (word.isdigit() and word == sentence[:-1].strip())
    )


def fitted(sentence: str, fits: Callable[[str], bool]) -> list[tuple[str, str]]:
    """A sentence in pieces that fit, each with the white space after it: cut at clauses, then commas, then words, then
    anywhere.

    Args:
        fits: whether a piece is short enough; one character must be.
    """
    if len(sentence) <= 1 or fits(sentence):
        return [(sentence, "")]
    at = _middle(sentence)
    left, right = sentence[:at], sentence[at:]
    kept = left.rstrip()
    pieces = fitted(kept, fits) if kept else [("", "")]
    last, space = pieces[-1]
    return [*pieces[:-1], (last, space + left[len(kept) :]), *fitted(right, fits)]


def _middle(sentence: str) -> int:
    """Where to cut a sentence: at the best mark that is nearest to its middle."""
    for kind in _CUTS:
        places = [found.end() for found in kind.finditer(sentence) if 0 < found.end() < len(sentence)]
        if places:
            return min(places, key=lambda place: abs(place - len(sentence) // 2))
    return len(sentence) // 2
