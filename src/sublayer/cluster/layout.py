"""How rows stand in the output: all columns of the input, those of the result beside them, and what went wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

from sublayer.cluster.parts import Chunk, Format, Part, Row, format_of, read
from sublayer.data.parquet import open_parquet, require_text
from sublayer.errors import DataError
from sublayer.untrusted import to_json

ERROR = "error"
SAMPLE = 1_000
"""Rows of JSON from which the columns of a Parquet file are taken."""


@dataclass(frozen=True)
class Layout:
    """column: where the text stands. new: the columns of the result, and their types. schema: of JSON lines that become
    Parquet, the columns as Arrow describes them; else None."""

    column: str
    new: Mapping[str, str]
    format: Format
    schema: Any = None

    def fitted(self, chunk: Chunk) -> Chunk:
        """The rows as the output holds them. One that cannot stand there as it is, is given whole in what is wrong
        with it, so that nothing is lost."""
        if chunk.in_arrow:
            if self.format == "parquet":
                return chunk
            chunk = Chunk(chunk.rows.to_pylist())
        for place, row in enumerate(chunk.rows):
            why = None if place in chunk.faults else self._misfit(row)
            if why is not None:
                shown = json.dumps(row, ensure_ascii=False, default=str)
                chunk.rows[place], chunk.faults[place] = {}, f"{why}; the row: {shown}"
        return chunk

    def _misfit(self, row: Row) -> str | None:
        own = next((name for name in row if name in self.new or name == ERROR), None)
        if own is not None:
            return f"it has a field '{own}', as the result has"
        try:
            if self.schema is None:
                to_json(row)
                return None
            pa: Any = import_module("pyarrow")
            pa.RecordBatch.from_pylist([row], schema=self.schema)
            unknown = next((name for name in row if name not in self.schema.names), None)
            return unknown and f"it has a field '{unknown}', which no row at the beginning has"
        except (ValueError, TypeError, OverflowError, NotImplementedError) as error:
            return f"it does not fit: {error}"


def layout(paths: Sequence[Path], column: str | None, new: Mapping[str, str], output: Format | None) -> Layout:
    """The layout for these files.

    Raises:
        DataError: a file has no such column of text, or has one that is called as a new one is; or what stands in the
            first rows cannot be written in the format.
    """
    wanted = output or format_of(paths[0])
    if format_of(paths[0]) == "jsonl":
        sample = next((rows for rows in map(_sample, paths) if rows), list[Row]())
        found = _with_column(paths[0], list(dict.fromkeys(name for row in sample for name in row)), column, new, wanted)
        return replace(found, schema=_schema(sample, found.column)) if wanted == "parquet" else found
    found = Layout("", new, wanted)
    for path in paths:
        with open_parquet(path) as file:
            schema = file.schema_arrow
        found = _with_column(path, schema.names, column, new, wanted)
        column = found.column
        require_text(path, schema, column)
        first = next(map(found.fitted, read(Part(0, str(path), 1, 1))), Chunk([]))
        if first.faults:
            raise DataError(f"{path}: {first.faults[0]}", f"Write {format_of(path)}, as it is.")
    return found


def _with_column(
    path: Path, names: Sequence[str], column: str | None, new: Mapping[str, str], wanted: Format
) -> Layout:
    chosen = column or ("source" if "source" in names and "text" not in names else "text")
    if chosen not in names:
        raise DataError(f"{path} has no column '{chosen}'", f"Name one of these: {', '.join(names) or 'none'}.")
    own = next((name for name in names if name in new or name == ERROR), None)
    if own is not None:
        raise DataError(f"{path} has a column '{own}', as the result has", "Rename it or leave it out.")
    return Layout(chosen, new, wanted)


def _sample(path: Path) -> list[Row]:
    """The first rows of a file of JSON lines that are any."""
    chunks = read(Part(0, str(path), 1, SAMPLE))
    return [row for chunk in chunks for place, row in enumerate(chunk.rows) if place not in chunk.faults]


def _schema(rows: Sequence[Row], column: str) -> Any:
    """The columns of rows of JSON; one of which nothing is known is of text, as that of the text is."""
    pa: Any = import_module("pyarrow")
    fields: list[Any] = []
    for name in dict.fromkeys(name for row in rows for name in row):
        try:
            kind: Any = pa.array([row.get(name) for row in rows]).type
        except (ValueError, TypeError, OverflowError) as error:
            raise DataError(f"field '{name}' makes no column of Parquet: {error}", "Write jsonl, as it is.") from None
        fields.append((name, pa.string() if name == column or pa.types.is_null(kind) else kind))
    schema: Any = pa.schema(fields)
    try:
        import_module("pyarrow.parquet").ParquetWriter(BytesIO(), schema).close()
    except NotImplementedError as error:  # {}, an object without a field
        raise DataError(f"the JSON lines make no columns of Parquet: {error}", "Write jsonl, as it is.") from None
    return schema
