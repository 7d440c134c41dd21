"""Parallel text from wherever it stands: a named corpus, two line-aligned files, TSV, JSON lines, or Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, assert_never, cast

from sublayer.config import Jsonl, LineAligned, NamedCorpus, ParallelText, Parquet, Tsv
from sublayer.data import corpora
from sublayer.data.download import Progress
from sublayer.data.jsonl import read_objects, read_rows, text_of, value_of
from sublayer.data.parquet import read_columns, row_groups
from sublayer.data.portions import Found, Portion, Stream, TextRow, files, in_lines, require_aligned, side_by_side
from sublayer.data.tables.table import Reader, Table, gathered
from sublayer.errors import DataError
from sublayer.text.lines import Span, cell, read_lines

_Pair = tuple[str, str]


class Pairs(Table[TextRow]):
    """Sentences and their translations, row by row, neither side empty."""

    @property
    def sources(self) -> list[str]:
        return [source for source, _ in self.rows]

    @property
    def targets(self) -> list[str]:
        return [target for _, target in self.rows]

    def texts(self) -> list[str]:
        """What makes a pair itself: its source. Pairs of one source are not torn apart."""
        return self.sources

    def rows_of_text(self) -> list[TextRow]:
        return self.rows

    def spelled(self, *, ends: bool) -> Iterator[str]:
        """All sources, then all targets."""
        yield from self.sources
        yield from self.targets

    def plain_rows(self) -> list[Mapping[str, Any]]:
        """Each source once, with all its translations."""
        return [{"source": source, "references": several} for source, several in zip(*grouped(self), strict=True)]


def grouped(pairs: Pairs) -> tuple[list[str], list[list[str]]]:
    """Each distinct source once, in order of first occurrence, and the list of its distinct translations."""
    references: dict[str, dict[str, None]] = {}
    for source, target in pairs:
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

    return Pairs(*gathered(found(), path, "pairs"))


def read(text: ParallelText, folder: Path, progress: Progress | None = None) -> Pairs:
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
    portions = cut(text, folder, None, progress)
    found = chain.from_iterable(read_portion(text, portion) for portion in portions)
    return Pairs(*gathered(found, portions[0].paths[0], "pairs"))


def cut(text: ParallelText, folder: Path, lines: int | None, progress: Progress | None = None) -> list[Portion]:
    """The portions of `text`, as in `Stream`; raises as `read`."""
    match text:
        case NamedCorpus():
            corpora.find(text.name).require("parallel", text.part)
            return in_lines([corpora.fetch(text.name, progress)], lines)
        case LineAligned():
            return side_by_side(folder / text.source, folder / text.target, lines)
        case Tsv() | Jsonl():
            return in_lines(files(folder / text.path), lines)
        case Parquet():
            return row_groups(folder / text.path)
        case _:
            assert_never(text)


def read_portion(text: ParallelText, portion: Portion) -> Found:
    """The rows of a portion of `text`; raises as `read`."""
    path, span = portion.paths[0], portion.spans[0]
    match text:
        case NamedCorpus():
            found = _tsv(path, span, 0, 1)
        case LineAligned():
            found = _aligned(portion)
        case Tsv():
            found = _tsv(path, span, text.source_column, text.target_column)
        case Jsonl():
            found = _jsonl(path, span, text.source_field, text.target_field)
        case Parquet():
            rows = read_columns(portion, (text.source_column, text.target_column))
            found = ((number, (source or "", target or "")) for number, (source, target) in rows)
        case _:
            assert_never(text)
    for number, pair in found:
        source, target = ("", "") if pair is None else (pair[0].strip(), pair[1].strip())
        if source and target:
            yield number, (source, target)
        else:
            yield number, "empty target" if source else "empty source" if target else "blank line"


_Numbered = Iterator[tuple[int, _Pair | None]]


def _aligned(portion: Portion) -> _Numbered:
    (source, target), (left_span, right_span) = portion.paths, portion.spans
    one, other = read_lines(source, left_span), read_lines(target, right_span)
    for number, (left, right) in enumerate(zip_longest(one, other), start=left_span.first):
        if left is None or right is None:
            rest = 1 + sum(1 for _ in (other if left is None else one))
            count, longer = number - 1, number - 1 + rest
            require_aligned(source, *((count, target, longer) if left is None else (longer, target, count)))
        else:
            yield number, (left, right)


def _tsv(path: Path, span: Span, source_column: int, target_column: int) -> _Numbered:
    """Columns between tabs; quotes are ordinary characters, as in the corpora that come in this form."""
    for number, line in enumerate(read_lines(path, span), start=span.first):
        columns = line.split("\t")
        if not line.strip():
            yield number, None
        else:
            source = cell(columns, source_column, "source_column", path, number)
            yield number, (source, cell(columns, target_column, "target_column", path, number))


def _jsonl(path: Path, span: Span, source_field: str, target_field: str) -> _Numbered:
    def pair(row: dict[str, Any], where: str) -> _Pair:
        remedy = "Set source_field and target_field."
        return text_of(row, source_field, where, remedy), text_of(row, target_field, where, remedy)

    return read_rows(path, pair, span)


PAIRS = Reader(read, read_plain, Stream(("source", "target"), cut, read_portion, Pairs))
