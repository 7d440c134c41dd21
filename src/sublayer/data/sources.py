"""Parallel text from wherever it stands: a named corpus, two line-aligned files, TSV, or JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, assert_never, cast

from sublayer.config import Jsonl, LineAligned, NamedCorpus, ParallelText, Tsv
from sublayer.data import corpora
from sublayer.data.jsonl import read_objects, text_of, value_of
from sublayer.data.report import Report
from sublayer.data.tables.table import Reader, gathered
from sublayer.errors import DataError
from sublayer.text.lines import read_lines

_Pair = tuple[str, str]


@dataclass(frozen=True)
class Pairs:
    """Sentences and their translations, row by row, neither side empty.

    lines: the line of each row in the file it came from, counted from 1; empty where that is not known.
    """

    sources: list[str]
    targets: list[str]
    report: Report
    lines: list[int] = field(default_factory=list[int])

    def __post_init__(self) -> None:
        if len(self.sources) != len(self.targets):
            raise DataError(f"{len(self.sources)} sources but {len(self.targets)} targets", "Give a target to each.")
        if self.lines and len(self.lines) != len(self.sources):
            raise DataError(f"{len(self.sources)} pairs but {len(self.lines)} line numbers", "Give all or none.")

    unit = "source sentences"

    def __len__(self) -> int:
        return len(self.sources)

    def texts(self) -> list[str]:
        """What makes a pair itself: its source. Pairs of one source are not torn apart."""
        return self.sources

    def rows_of_text(self) -> list[tuple[str, ...]]:
        return list(zip(self.sources, self.targets, strict=True))

    def take(self, rows: Iterable[int], report: Report) -> Pairs:
        """The pairs at `rows`, with a report of their own."""
        chosen = list(rows)
        return Pairs(
            [self.sources[row] for row in chosen],
            [self.targets[row] for row in chosen],
            report,
            [self.lines[row] for row in chosen] if self.lines else [],
        )

    def lines_of(self, rows: Iterable[int]) -> list[int]:
        """Line numbers of `rows`, or nothing where they are not known."""
        return [self.lines[row] for row in rows] if self.lines else []

    def spelled(self, *, ends: bool) -> Iterator[str]:
        """As `Table.spelled`: all sources, then all targets."""
        yield from self.sources
        yield from self.targets

    def plain_rows(self) -> list[Mapping[str, Any]]:
        """Each source once, with all its translations."""
        return [{"source": source, "references": several} for source, several in zip(*grouped(self), strict=True)]


def grouped(pairs: Pairs) -> tuple[list[str], list[list[str]]]:
    """Each distinct source once, in order of first occurrence, and the list of its distinct translations."""
    references: dict[str, dict[str, None]] = {}
    for source, target in zip(pairs.sources, pairs.targets, strict=True):
        references.setdefault(source, {})[target] = None
    return list(references), [list(targets) for targets in references.values()]


def read_plain(path: Path) -> Pairs:
    """What `Pairs.plain_rows` gives, from a file of JSON lines: a pair for each translation.

    Raises:
        DataError: the file has no sentences, or a line is not {"source", "references"}.
    """
    remedy = 'Write {"source": "...", "references": ["..."]}.'

    def found() -> Iterator[tuple[int, _Pair | str]]:
        for number, table in read_objects(path):
            if table is None:
                yield number, "blank line"
                continue
            where = f"{path}, line {number}"
            source, several = text_of(table, "source", where, remedy), value_of(table, "references", where, remedy)
            if not isinstance(several, list) or not several:
                raise DataError(f"{where}: references is not a filled list", remedy)
            yield from ((number, (source, str(target))) for target in cast("list[Any]", several))

    return _collect(found(), path)


def read(text: ParallelText, folder: Path, progress: Callable[[int, int], None] | None = None) -> Pairs:
    """All pairs of `text`, in the order of the file.

    The text is kept as it stands, but for white space at the ends of a side, a byte order mark, and carriage returns
    at the ends of lines. Pairs with an empty side are left out and counted in the report, by line.

    Args:
        text: where the pairs are.
        folder: relative paths start here (a recipe's folder).
        progress: called with bytes so far and in all while a named corpus is fetched.

    Raises:
        DataError: a file is missing or empty, a line is not UTF-8, the files' line counts differ, or a row lacks a
            column or field; file and line are named.
    """
    match text:
        case NamedCorpus():
            row = corpora.find(text.name)
            row.require("parallel", text.part)
            path = corpora.fetch(text.name, progress)
            return _collect(_filled(_tsv(path, row.source_column, row.target_column)), path)
        case LineAligned():
            source, target = folder / text.source, folder / text.target
            return _collect(_filled(_aligned(source, target)), source)
        case Tsv():
            path = folder / text.path
            return _collect(_filled(_tsv(path, text.source_column, text.target_column)), path)
        case Jsonl():
            path = folder / text.path
            return _collect(_filled(_jsonl(path, text.source_field, text.target_field)), path)
        case _:
            assert_never(text)


def _collect(found: Iterable[tuple[int, _Pair | str]], path: Path) -> Pairs:
    pairs, report, lines = gathered(found, path, "pairs")
    return Pairs([source for source, _ in pairs], [target for _, target in pairs], report, lines)


def _filled(rows: Iterable[_Pair | None]) -> Iterator[tuple[int, _Pair | str]]:
    """The number of each row, from 1, and the row where neither side is empty."""
    for number, row in enumerate(rows, start=1):
        source, target = ("", "") if row is None else (row[0].strip(), row[1].strip())
        filled = (source, target) if source and target else ""
        yield number, filled or ("empty target" if source else "empty source" if target else "blank line")


def _aligned(source: Path, target: Path) -> Iterator[_Pair | None]:
    one, other = read_lines(source), read_lines(target)
    number = 0
    for number, (left, right) in enumerate(zip_longest(one, other), start=1):
        if left is None or right is None:
            rest = 1 + sum(1 for _ in (other if left is None else one))
            short, long = (source, target) if left is None else (target, source)
            raise DataError(
                f"{short} has {number - 1} lines but {long} has {number - 1 + rest}",
                "Line n of one must be the translation of line n of the other.",
            )
        yield left, right


def _tsv(path: Path, source_column: int, target_column: int) -> Iterator[_Pair | None]:
    """Columns between tabs; quotes are ordinary characters, as in the corpora that come in this form."""
    needed = max(source_column, target_column)
    for number, line in enumerate(read_lines(path), start=1):
        columns = line.split("\t")
        if not line.strip():
            yield None
        elif len(columns) <= needed:
            raise DataError(
                f"{path}, line {number}: column {needed} is missing, there are {len(columns)} (counted from 0)",
                "Check that tabs separate the columns, and source_column and target_column.",
            )
        else:
            yield columns[source_column], columns[target_column]


def _jsonl(path: Path, source_field: str, target_field: str) -> Iterator[_Pair | None]:
    remedy = "Set source_field and target_field."
    for number, table in read_objects(path):
        if table is None:
            yield None
        else:
            where = f"{path}, line {number}"
            yield text_of(table, source_field, where, remedy), text_of(table, target_field, where, remedy)


PAIRS = Reader(read, read_plain)
