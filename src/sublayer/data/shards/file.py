"""A shard: the ids of some rows, in a file that is written while they come and read where it lies.

It is a safetensors file of two tensors:

    starts  I64 [rows * columns + 1]    where each text begins among the ids, and at last where all end
    ids     U16 or U32 [ids]            the texts of a row follow one another; U16 holds a vocabulary of 65,536
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sublayer.data.ragged import Ragged
from sublayer.errors import DataError
from sublayer.files import replacing

TYPES = {"uint16": ("U16", np.dtype("<u2")), "uint32": ("U32", np.dtype("<u4"))}
"""How ids are kept: safetensors' name and numpy's, by the name in an index."""
_STARTS = np.dtype("<i8")
AGAIN = "Prepare the text again."


def smallest_type(vocab_size: int) -> str:
    """How the ids of a vocabulary are kept."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


@dataclass
class ShardWriter:
    """Two files that grow. rows, ids: how many there are by now."""

    starts_file: BinaryIO
    ids_file: BinaryIO
    type: str
    rows: int = 0
    ids: int = 0

    def add(self, columns: Sequence[Ragged]) -> None:
        """Add rows: a text of each column makes one."""
        texts = [column[row] for row in range(len(columns[0])) for column in columns]
        ends = self.ids + np.cumsum([len(text) for text in texts], dtype=_STARTS)
        self.starts_file.write(ends.tobytes())
        if texts:
            self.ids_file.write(np.concatenate(texts).astype(TYPES[self.type][1]).tobytes())
            self.ids = int(ends[-1])
        self.rows += len(columns[0])


@contextmanager
def writing(path: Path, type_: str) -> Generator[ShardWriter]:
    """A shard to be filled within the block, and then there as a whole.

    Raises:
        StorageError: the disk refused.
    """
    with replacing(path) as aside:
        parts = [aside.with_suffix(".starts"), aside.with_suffix(".ids")]
        with parts[0].open("wb") as starts, parts[1].open("wb") as ids:
            starts.write(np.zeros(1, dtype=_STARTS).tobytes())
            writer = ShardWriter(starts, ids, type_)
            yield writer
        sizes = [part.stat().st_size for part in parts]
        header = {
            "starts": {"dtype": "I64", "shape": [sizes[0] // _STARTS.itemsize], "data_offsets": [0, sizes[0]]},
            "ids": {"dtype": TYPES[type_][0], "shape": [writer.ids], "data_offsets": [sizes[0], sum(sizes)]},
        }
        said = json.dumps(header, separators=(",", ":")).encode()
        said += b" " * (-len(said) % 8)  # so that numbers of eight bytes lie at multiples of eight
        with aside.open("wb") as whole:
            whole.write(len(said).to_bytes(8, "little") + said)
            for part in parts:
                with part.open("rb") as held:
                    shutil.copyfileobj(held, whole, 1 << 20)
                part.unlink()


@dataclass(frozen=True)
class Shard:
    """A shard in place. starts: int64 [rows * columns + 1]. ids: uint16 or uint32 [ids]."""

    path: Path
    starts: NDArray[np.int64]
    ids: NDArray[np.integer]
    columns: int

    @classmethod
    def open(cls, path: Path, *, rows: int, ids: int, columns: int, type_: str) -> Shard:
        """
        Raises:
            DataError: the file is missing, or not a shard with so many rows and ids.
        """
        count = rows * columns + 1
        wanted = {"starts": ("I64", [count], _STARTS), "ids": (TYPES[type_][0], [ids], TYPES[type_][1])}
        try:
            with path.open("rb") as handle:
                length = int.from_bytes(handle.read(8), "little")
                header: dict[str, Any] = json.loads(handle.read(length)) if length < _LONGEST_HEADER else {}
            arrays: list[Any] = []
            for name, (said, shape, dtype) in wanted.items():
                one = header[name]
                begin, end = one["data_offsets"]
                if (one["dtype"], one["shape"]) != (said, shape) or end - begin != shape[0] * dtype.itemsize:
                    raise ValueError(f"{name} is {one['dtype']} {one['shape']}, and {said} {shape} is expected")
                place = 8 + length + begin
                # Nothing can be mapped of no bytes.
                arrays.append(np.memmap(path, dtype, "r", place, (shape[0],)) if shape[0] else np.zeros(0, dtype=dtype))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{path} is not the shard that its index speaks of: {reason}", AGAIN) from None
        return cls(path, arrays[0], arrays[1], columns)

    def take(self, rows: NDArray[np.int64]) -> list[Ragged]:
        """The texts of these rows, a column after the other.

        Raises:
            DataError: the file is damaged: texts reach outside of it.
        """
        found: list[Ragged] = []
        for column in range(self.columns):
            places = rows * self.columns + column
            begins = np.asarray(self.starts[places], dtype=np.int64)
            lengths = np.asarray(self.starts[places + 1], dtype=np.int64) - begins
            if len(rows) and (lengths.min() < 0 or begins.min() < 0 or int((begins + lengths).max()) > len(self.ids)):
                raise DataError(f"{self.path} is damaged: a text reaches outside of it", AGAIN)
            starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            each = np.arange(int(starts[-1])) + np.repeat(begins - starts[:-1], lengths)
            found.append(Ragged(self.ids[each].astype(np.int32), starts))
        return found


_LONGEST_HEADER = 1 << 16
