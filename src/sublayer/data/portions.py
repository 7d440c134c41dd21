"""Text in portions that can be read one without the other: what is prepared in parallel, and never read as a whole.

A plain file of lines is cut into spans of lines, Parquet into its row groups; a packed file, and one whose documents
are more than a line, is one portion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from sublayer.data.download import Progress
from sublayer.data.report import Report
from sublayer.data.tables.table import Table
from sublayer.errors import DataError
from sublayer.text.lines import WHOLE, Span, spans, unreadable

TextRow = tuple[str, ...]
"""The texts of a row: two of a pair, one of a document."""
Found = Iterator[tuple[int, TextRow | str]]
"""Of each row its line in the file, and its texts or why there is no row."""
T = TypeVar("T", bound=Table[Any])


@dataclass(frozen=True)
class Portion:
    """Files that are read side by side, each from and to a place. group: of Parquet, which of its row groups. part: of
    a mixture, which of its texts."""

    paths: tuple[Path, ...]
    spans: tuple[Span, ...]
    group: int | None = None
    part: int = 0


@dataclass(frozen=True)
class Stream(Generic[T]):
    """How text of one kind is read in portions.

    columns: what the texts of a row are called. cut: the portions of a source, of so many lines each, or as large as
    can be for None. rows: of a portion. table: rows as they stand in memory. All are functions of a module, so that
    another process can be told of them.
    """

    columns: tuple[str, ...]
    cut: Callable[[Any, Path, int | None, Progress | None], list[Portion]]
    rows: Callable[[Any, Portion], Found]
    table: Callable[[list[TextRow], Report], T]


def files(path: Path) -> list[Path]:
    """The files that a path with * and ? names, in the order of their names; any other path alone.

    Raises:
        DataError: there is none.
    """
    if path.exists() or not any(sign in str(path) for sign in "*?["):
        return [path]
    rooted = Path(path.anchor)
    found = sorted(each for each in rooted.glob(str(path.relative_to(rooted))) if each.is_file())
    if not found:
        raise DataError(f"no file is called {path}", "Check the path; a relative one starts at the recipe.")
    return found


def in_lines(paths: Sequence[Path], lines: int | None) -> list[Portion]:
    """Pieces of files in which every line is a row."""
    cut = [(path, span) for path in paths for span in ([WHOLE] if lines is None else spans(path, lines)[0])]
    return [Portion((path,), (span,)) for path, span in cut]


def side_by_side(one: Path, other: Path, lines: int | None) -> list[Portion]:
    """Pieces of files of which line n of one belongs to line n of the other.

    Raises:
        DataError: one name stands for more files than the other, or one file has more lines.
    """
    ones, others = files(one), files(other)
    if len(ones) != len(others):
        raise DataError(
            f"{one} names {len(ones)} files and {other} names {len(others)}", "Each file needs one of the other side."
        )
    return [portion for left, right in zip(ones, others, strict=True) for portion in _aligned(left, right, lines)]


def _aligned(left: Path, right: Path, lines: int | None) -> list[Portion]:
    whole = Portion((left, right), (WHOLE, WHOLE))
    if lines is None:
        return [whole]
    (one, count), (other, number) = spans(left, lines), spans(right, lines)
    if -1 in (count, number):
        return [whole]
    require_aligned(left, count, right, number)
    return [Portion((left, right), both) for both in zip(one, other, strict=True)]


def require_aligned(left: Path, count: int, right: Path, number: int) -> None:
    """
    Raises:
        DataError: the two files have not the same number of lines.
    """
    if count != number:
        (short, few), (long, many) = sorted([(left, count), (right, number)], key=lambda each: each[1])
        raise DataError(
            f"{short} has {few} lines but {long} has {many}",
            "Line n of one must be the translation of line n of the other.",
        )


def size_and_time(path: Path) -> list[int]:
    """By which a file is known again: its bytes, and when it was last written.

    Raises:
        DataError: there is no such file.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise unreadable(path, error) from None
    return [found.st_size, found.st_mtime_ns]
