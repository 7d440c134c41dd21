"""Finding rows that are probably damaged: the checks that `[data.filter]` turns on and `sublayer data check` counts.

A check looks at a row as its texts: two for a pair, one for any other row. The checks are those that people of the
trade run before they train (OpusFilter; the pipeline of the Firefox translations).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache

from sublayer.config.filter import SUSPICIOUS, Filter
from sublayer.data.report import Report
from sublayer.data.split import key
from sublayer.data.tables.table import TableT
from sublayer.errors import DataError

Row = tuple[str, ...]
"""The texts of a row."""

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069\ufffd\ue000-\uf8ff]")
"""C0 and C1 but for tab and line feed; zero-width space, word joiner and byte order mark; overrides and isolates of the
writing direction; the replacement character; private use. Joiners (U+200C, U+200D) and direction marks spell words."""

_ATTRIBUTE = r"""\s+[\w:-]+\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>]+)"""
MARKUP = re.compile(
    rf"</?[A-Za-z][A-Za-z0-9:-]*(?:{_ATTRIBUTE})*\s*/?>|<!--|&(?:[A-Za-z]{{2,8}}|#[0-9]{{1,6}}|#x[0-9A-Fa-f]{{1,6}});"
)
"""A tag, whose attributes have values; a comment; an entity. "a<b and c>d" is none."""

_CONTINUED = "\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
"""A continuation byte of UTF-8, read as Latin-1 or Windows-1252."""
MOJIBAKE = re.compile(
    f"Ã[{_CONTINUED}]|Â[\xa0-\xbf]|â€[{_CONTINUED}]|ï»¿|ðŸ[{_CONTINUED}]|(?:[ÐÑ][{_CONTINUED}]){{2,}}"
)
"""Accented letters, symbols, quotation marks, a byte order mark, emoji, Cyrillic. No language spells these pairs."""

ADDED = 10
"""Characters that are counted on each side of a ratio beside its own: "Sí." is a right answer to "Yes, I do."."""

_ONE_SCRIPT = {"CJK": "HAN", "HIRAGANA": "HAN", "KATAKANA": "HAN", "FULLWIDTH": "LATIN"}
"""Japanese writes with several."""


def conditions(settings: Filter) -> dict[str, Callable[[Row], bool] | None]:
    """The checks that are on: what a row that is found is, and whether a row is; None for the two (`REPEATED`,
    `FOREIGN`) that a row is only beside all others."""
    least, most, ratio = settings.min_words, settings.max_words, settings.length_ratio
    found: dict[str, Callable[[Row], bool] | None] = {}
    if least is not None:
        found[f"of fewer than {least} words"] = lambda row: min(_words(row)) < least
    if most is not None:
        found[f"of more than {most} words"] = lambda row: max(_words(row)) > most
    if ratio is not None:
        found[f"with one side over {ratio:g} times as long"] = lambda row: _ratio(row) > ratio
    if settings.duplicates:
        found[REPEATED] = None
    if settings.identical:
        found["with two equal sides"] = lambda row: len(row) > 1 and len(set(map(key, row))) == 1
    if settings.script:
        found[FOREIGN] = None
    if settings.control:
        found["with control or zero-width characters"] = lambda row: any(map(CONTROL.search, row))
    if settings.markup:
        found["with markup"] = lambda row: any(map(MARKUP.search, row))
    if settings.mojibake:
        found["with mojibake"] = lambda row: any(map(MOJIBAKE.search, row))
    return found


REPEATED, FOREIGN = "that came before", "in another script than most"


def checks(settings: Filter) -> dict[str, Callable[[Sequence[Row]], Iterator[int]]]:
    """The checks that are on: what a row that is found is, and what finds them among all rows, by their numbers."""
    among_all = {REPEATED: _repeated, FOREIGN: _foreign}
    return {
        what: among_all[what] if damaged is None else _each(damaged) for what, damaged in conditions(settings).items()
    }


def clean(table: TableT, settings: Filter) -> TableT:
    """Return `table` without the rows that a check finds, each counted once, by the first check that finds it.

    What is suspicious among the rows that stay is noted in the report.

    Raises:
        DataError: nothing is left.
    """
    rows = table.rows_of_text()
    report, out = table.report, set[int]()
    for reason, find in checks(settings).items():
        more = [row for row in find(rows) if row not in out]
        out.update(more)
        report = report.leave_out(reason, table.lines_of(more), len(more))
    if len(out) == len(table):
        raise nothing_left(len(table), report)
    # A row that is in question for being unlike the others is so among all of them.
    for what, find in checks(SUSPICIOUS).items():
        staying = [row for row in find(rows) if row not in out]
        report = report.note(what, table.lines_of(staying), len(staying))
    return table.take((row for row in range(len(table)) if row not in out), report)


def nothing_left(rows: int, report: Report) -> DataError:
    """What is to be raised where a filter leaves none of so many rows."""
    return DataError(f"data.filter leaves none of {rows:,} {report.noun}", f"It says: {report}.")


def _each(damaged: Callable[[Row], bool]) -> Callable[[Sequence[Row]], Iterator[int]]:
    """A check that looks at every row by itself."""

    def find(rows: Sequence[Row]) -> Iterator[int]:
        return (number for number, row in enumerate(rows) if damaged(row))

    return find


def _words(row: Row) -> Iterable[int]:
    return (len(text.split()) for text in row)


def _ratio(row: Row) -> float:
    lengths = [len(text) + ADDED for text in row]
    return max(lengths) / min(lengths)


def _repeated(rows: Sequence[Row]) -> Iterator[int]:
    seen = set[Row]()
    for number, row in enumerate(rows):
        same = tuple(map(key, row))
        if same in seen:
            yield number
        seen.add(same)


def _foreign(rows: Sequence[Row]) -> Iterator[int]:
    sides = [[script(text) for text in side] for side in zip(*rows, strict=True)]
    usual = [Counter(one for one in side if one).most_common(1) for side in sides]
    for number, row in enumerate(zip(*sides, strict=True)):
        if any(one and one != most[0][0] for one, most in zip(row, usual, strict=True)):
            yield number


def script(text: str) -> str:
    """Return the script of most letters, as Unicode's names of characters begin ("LATIN"); "" where there is none."""
    if text.isascii():
        return "LATIN" if any(map(str.isalpha, text)) else ""
    counts = Counter(_script_of(character) for character in text if character.isalpha())
    return counts.most_common(1)[0][0] if counts else ""


@cache
def _script_of(letter: str) -> str:
    first = unicodedata.name(letter, "UNKNOWN").split()[0]
    return _ONE_SCRIPT.get(first, first)
