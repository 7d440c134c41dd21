"""Columns of text in Parquet files, a row group at a time; pyarrow reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sublayer.data.portions import Portion, files
from sublayer.errors import DataError
from sublayer.text.lines import WHOLE

_ROWS = 10_000


def row_groups(path: Path) -> list[Portion]:
    """A portion for each row group of each file.

    Raises:
        DataError: a file is missing or no Parquet file, or pyarrow is not there.
    """
    return [
        Portion((file,), (WHOLE,), group)
        for file in files(path)
        for group in range(open_parquet(file).metadata.num_row_groups)
    ]


def read_columns(portion: Portion, names: Sequence[str]) -> Iterator[tuple[int, list[str | None]]]:
    """The number of each row in its file, from 1, and its texts; None where there is none.

    Raises:
        DataError: there is no such column, or it is not of text.
    """
    (path,), group = portion.paths, portion.group
    assert group is not None
    with open_parquet(path) as file:
        schema = file.schema_arrow
        for name in names:
            require_text(path, schema, name)
        number = sum(file.metadata.row_group(each).num_rows for each in range(group))
        try:
            for batch in file.iter_batches(batch_size=_ROWS, row_groups=[group], columns=list(names)):
                for row in zip(*(batch.column(name).to_pylist() for name in names), strict=True):
                    number += 1
                    yield number, list(row)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is damaged: {error}", "Copy or fetch the file again.") from None


def require_text(path: Path, schema: Any, name: str) -> None:
    """
    Raises:
        DataError: there is no such column, or it is not of text.
    """
    if name not in schema.names:
        raise DataError(f"{path} has no column '{name}'", f"It has {', '.join(schema.names)}.")
    if str(schema.field(name).type) not in ("string", "large_string", "string_view"):
        raise DataError(f"{path}: column '{name}' is of {schema.field(name).type}", "Name a column of text.")


def open_parquet(path: Path) -> Any:
    """pyarrow's `ParquetFile`.

    Raises:
        DataError: the file is missing or no Parquet file, or pyarrow is not there.
    """
    try:
        import pyarrow.parquet as parquet  # pyright: ignore
    except ImportError:
        raise DataError(f"{path} is a Parquet file, and pyarrow is not here", "Install sublayer[data].") from None
    try:
        return parquet.ParquetFile(path)  # pyright: ignore
    except FileNotFoundError:
        raise DataError(f"{path} does not exist", "Check the path; a relative one starts at the recipe.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}", "Name a Parquet file.") from None
