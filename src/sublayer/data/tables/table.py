"""Rows of text that can be split into parts: what pairs, documents, labelled texts and conversations have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

from sublayer.data.jsonl import read_rows
from sublayer.data.report import Report
from sublayer.errors import DataError

if TYPE_CHECKING:
    from sublayer.data.portions import Stream


R = TypeVar("R")


@dataclass(frozen=True)
class Table(ABC, Generic[R]):
    """Rows and a report of them.

    lines: the line where each begins in its file, counted from 1; empty where that is not known.
    """

    rows: list[R]
    report: Report
    lines: list[int] = field(default_factory=list[int])

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[R]:
        return iter(self.rows)

    @abstractmethod
    def texts(self) -> Sequence[str]:
        """The text by which each row is recognised when it is asked whether two are the same."""

    def rows_of_text(self) -> Sequence[tuple[str, ...]]:
        """The texts of each row: two of a pair, one of any other."""
        return [(text,) for text in self.texts()]

    def take(self, rows: Iterable[int], report: Report) -> Self:
        """The table of these rows, with a report of its own."""
        chosen = list(rows)
        return type(self)([self.rows[row] for row in chosen], report, self.lines_of(chosen))

    def lines_of(self, rows: Iterable[int]) -> list[int]:
        """Line numbers of `rows`, or nothing where they are not known."""
        return [self.lines[row] for row in rows] if self.lines else []

    @abstractmethod
    def spelled(self, *, ends: bool) -> Iterator[str]:
        """The text that a tokenizer is trained on.

        Args:
            ends: whether a line of a document ends with its line feed, which is then a part of the text.
        """

    @abstractmethod
    def plain_rows(self) -> list[Mapping[str, Any]]:
        """The rows as plain values, as JSON holds them."""


class Row(Protocol):
    @property
    def text_key(self) -> str:
        """By which the row is recognised."""
        ...

    @property
    def plain(self) -> Mapping[str, Any]:
        """The row as a plain value."""
        ...

    def spelled(self, *, ends: bool) -> Iterator[str]:
        """As `Table.spelled`."""
        ...


RowT = TypeVar("RowT", bound=Row)
TableT = TypeVar("TableT", bound=Table[Any])


class Rows(Table[RowT]):
    """Rows that say themselves what they are: documents, labelled texts, tagged sentences, conversations."""

    def texts(self) -> Sequence[str]:
        return [row.text_key for row in self.rows]

    def spelled(self, *, ends: bool) -> Iterator[str]:
        for row in self.rows:
            yield from row.spelled(ends=ends)

    def plain_rows(self) -> list[Mapping[str, Any]]:
        return [row.plain for row in self.rows]


def gathered(found: Iterable[tuple[int, R | str]], path: Path, noun: str) -> tuple[list[R], Report, list[int]]:
    """The rows of what a reader yields (a line and its row, or a line and why there is no row), a report, their lines.

    Raises:
        DataError: there is no row.
    """
    rows: list[R] = []
    lines: list[int] = []
    empty: dict[str, list[int]] = {}
    for line, row in found:
        if isinstance(row, str):
            empty.setdefault(row, []).append(line)
        else:
            rows.append(row)
            lines.append(line)
    if not rows:
        raise DataError(f"{path} has no {noun}", "Check the path, and which columns, fields or files are which.")
    total = len(rows) + sum(map(len, empty.values()))
    report = Report(read=total, kept=total, noun=noun)
    for reason, where in empty.items():
        report = report.leave_out(reason, where)
    return rows, report, lines


def collect(found: Iterable[tuple[int, RowT | str]], path: Path, noun: str) -> Rows[RowT]:
    """A table of what a reader yields, as in `gathered`."""
    return Rows(*gathered(found, path, noun))


@dataclass(frozen=True)
class Reader(Generic[TableT]):
    """How text of one kind is read: from a source that a recipe names, and from the form in which it is held out.

    stream: how it is read in portions; None of text that is always small.
    """

    read: Callable[[Any, Path], TableT]
    read_plain: Callable[[Path], TableT]
    stream: Stream[TableT] | None = None


def collect_plain(path: Path, row: Callable[[dict[str, Any], str], RowT | str], noun: str) -> Rows[RowT]:
    """A table of what `Rows.plain_rows` gives, from a file of JSON lines.

    Args:
        row: makes a row of an object and of the place where it stands, or says why it makes none.

    Raises:
        DataError: there is no row, or a line is not an object.
    """

    return collect(((number, found or "blank line") for number, found in read_rows(path, row)), path, noun)
