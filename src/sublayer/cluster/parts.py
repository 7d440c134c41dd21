"""Files of rows, in parts: ranges of rows that are read one without the other, each with a number.

How files are cut depends on nothing but the files and the number of rows of a part, so that whoever starts again finds
the same parts. A packed file of JSON lines cannot be entered in the middle and is one part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from sublayer.data.parquet import open_parquet
from sublayer.data.portions import files
from sublayer.errors import DataError
from sublayer.text.lines import PACKED, Span, read_raw_lines, spans
from sublayer.untrusted import UntrustedError, parse_json

Format = Literal["parquet", "jsonl"]
Row: TypeAlias = dict[str, Any]
ROWS = 512
"""Rows that stand in memory together and are handed to the model."""
_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Part:
    """Rows of a file. first: the number of the first one, from 1. count: how many at most; None for all that follow.
    begin: the byte where they stand in a file of lines."""

    number: int
    path: str
    first: int
    count: int | None
    begin: int = 0


@dataclass
class Chunk:
    """Some rows in memory: a batch of Arrow's where they come from Parquet, else dicts. faults: what is wrong with a
    row before a model has seen it, by its place."""

    rows: Any
    faults: dict[int, str] = field(default_factory=dict[int, str])

    @property
    def in_arrow(self) -> bool:
        return not isinstance(self.rows, list)

    def texts(self, column: str) -> list[Any]:
        return self.rows.column(column).to_pylist() if self.in_arrow else [row.get(column) for row in self.rows]


def inputs(patterns: Sequence[str | Path]) -> list[Path]:
    """The files that names with * and ? stand for, each once, as absolute paths.

    Raises:
        DataError: there is none, or they are not all Parquet or all JSON lines by their names.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        try:
            found.update(dict.fromkeys(path.resolve() for path in files(Path(pattern))))
        except DataError as error:
            raise DataError(error.what, "Check the path.") from None
    missing = next((path for path in found if not path.is_file()), None)
    if missing is not None:
        raise DataError(f"{missing} does not exist, or is no file", "Check the path.")
    other = next((path for path in found if format_of(path) != format_of(next(iter(found)))), None)
    if other is not None:
        raise DataError(f"{next(iter(found))} and {other} are of different formats", "Take one format at a time.")
    return [*found]


def format_of(path: Path) -> Format:
    """What a file holds, by its name.

    Raises:
        DataError: it ends in another way than files of rows do.
    """
    if path.suffix == ".parquet":
        return "parquet"
    if (path.with_suffix("") if path.suffix in PACKED else path).suffix in (".jsonl", ".ndjson", ".json"):
        return "jsonl"
    raise DataError(f"{path} is neither Parquet nor JSON lines by its name", "Name *.parquet or *.jsonl files.")


def cut(paths: Sequence[Path], rows: int) -> list[Part]:
    """All files in parts of so many rows."""
    found: list[Part] = []
    for path in paths:
        if format_of(path) == "parquet":
            with open_parquet(path) as file:
                total = file.metadata.num_rows
            where = [Span(0, first, rows) for first in range(1, total + 1, rows)]
        else:
            where, _ = spans(path, rows)
        for span in where:
            found.append(Part(len(found), str(path), span.first, span.count, span.begin))
    return found


def read(part: Part) -> Iterator[Chunk]:
    """The rows of a part, some at a time.

    Raises:
        DataError: the file is damaged or gone.
    """
    return _lines(part) if format_of(Path(part.path)) == "jsonl" else map(Chunk, _batches(part))


def _lines(part: Part) -> Iterator[Chunk]:
    """A blank line is no row; a line that is not an object is one without a text."""
    chunk = Chunk(list[Row]())
    span = Span(part.begin, part.first, part.count)
    for number, raw in enumerate(read_raw_lines(Path(part.path), span), part.first):
        line = raw.removeprefix(_MARK) if number == 1 else raw
        if not line.strip():
            continue
        row, fault = _object(line)
        if fault:
            chunk.faults[len(chunk.rows)] = fault
        chunk.rows.append(row)
        if len(chunk.rows) == ROWS:
            yield chunk
            chunk = Chunk(list[Row]())
    if chunk.rows:
        yield chunk


def _object(line: bytes) -> tuple[Row, str]:
    try:
        row: Any = parse_json(line)
        if isinstance(row, dict):
            return cast("Row", row), ""
        why = "is not an object"
    except UntrustedError as error:
        why = str(error)
    return {}, f"the line {why}; the line: {line.decode('utf-8', 'backslashreplace')}"


def _batches(part: Part) -> Iterator[Any]:
    """A row group cannot be entered in the middle: what stands in it before the part is read and passed over, which
    takes little time beside what a model does."""
    assert part.count is not None
    first, last, path = part.first - 1, part.first - 1 + part.count, Path(part.path)
    with open_parquet(path) as file:
        sizes = (file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups))
        bounds = [*pairwise(accumulate(sizes, initial=0))]
        groups = [group for group, (begin, end) in enumerate(bounds) if begin < last and end > first]
        at = bounds[groups[0]][0] if groups else 0
        try:
            for batch in file.iter_batches(batch_size=ROWS, row_groups=groups):
                begin, stop = max(first - at, 0), min(last - at, len(batch))
                if begin < stop:
                    yield batch.slice(begin, stop - begin)
                at += len(batch)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is damaged: {error}", "Copy or fetch the file again.") from None
