"""Parts of the output, each a file that is written aside and renamed into place, so that what stands is whole."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from uuid import uuid4

from sublayer.cluster.layout import ERROR, Layout
from sublayer.cluster.parts import Chunk, Format
from sublayer.data.parquet import open_parquet
from sublayer.files import storage_error
from sublayer.text.lines import read_raw_lines
from sublayer.untrusted import to_json

GROUP = 10_000
"""Rows of a row group."""
Columns = Mapping[str, Sequence[Any]]


class Sink(Protocol):
    def write(self, chunk: Chunk, new: Columns) -> None:
        """Write rows with what is new, a value for each of them in every column."""
        ...

    def close(self) -> None: ...


def file_of(out: Path, number: int, suffix: Format) -> Path:
    return out / f"part-{number:06}.{suffix}"


def asides(path: Path) -> list[Path]:
    """What is being written for a file, or was by a process that was killed. The last part but one of such a name is
    the process."""
    return [*path.parent.glob(f".{path.name}.*")]


@contextmanager
def writing(path: Path, layout: Layout) -> Generator[Sink]:
    """A part to be filled within the block, and then there as a whole.

    Several machines write into the folder, so it is not for them to say whose files are left over; who starts a run is.

    Raises:
        StorageError: the disk refused.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.{uuid4().hex}")
    try:
        with aside.open("wb") as handle:
            sink = _Parquet(handle, layout) if layout.format == "parquet" else _Json(handle)
            yield sink
            sink.close()
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(aside, path)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        aside.unlink(missing_ok=True)


def counted(path: Path) -> tuple[int, int]:
    """The rows of a part that stands, and how many of them have failed."""
    if path.suffix == ".parquet":
        with open_parquet(path) as file:
            errors = file.read([ERROR]).column(ERROR)
            return len(errors), len(errors) - errors.null_count
    fine = [line.endswith(_FINE) for line in read_raw_lines(path)]
    return len(fine), fine.count(False)


_FINE = f', "{ERROR}": null}}'.encode()
"""How a line ends whose row has not failed."""


class _Json:
    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle

    def write(self, chunk: Chunk, new: Columns) -> None:
        for place, row in enumerate(chunk.rows):
            whole = {**row, **{name: values[place] for name, values in new.items()}}
            self._handle.write(f"{to_json(whole)}\n".encode())

    def close(self) -> None: ...


class _Parquet:
    def __init__(self, handle: BinaryIO, layout: Layout) -> None:
        self._handle, self._layout = handle, layout
        self._types = {**layout.new, ERROR: "string"}
        self._writer: Any = None
        self._waiting: list[Any] = []

    def write(self, chunk: Chunk, new: Columns) -> None:
        pa: Any = import_module("pyarrow")
        batch = chunk.rows
        if not chunk.in_arrow:
            batch = pa.RecordBatch.from_pylist(batch, schema=self._layout.schema)
        table: Any = pa.Table.from_batches([batch])
        for name, kind in self._types.items():
            arrow: Any = pa.list_(pa.float32()) if kind == "list<float>" else pa.type_for_alias(kind)
            table = table.append_column(name, pa.array(new[name], arrow))
        self._waiting.append(table)
        if sum(map(len, self._waiting)) >= GROUP:
            self._flush()

    def _flush(self) -> None:
        pa, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
        whole: Any = pa.concat_tables(self._waiting)
        self._writer = self._writer or parquet.ParquetWriter(self._handle, whole.schema)
        self._writer.write_table(whole)
        self._waiting.clear()

    def close(self) -> None:
        if not self._writer and not self._waiting:
            self.write(Chunk([]), dict.fromkeys(self._types, ()))
        if self._waiting:
            self._flush()
        self._writer.close()
