"""The first look at every row: what decides whether it is trained on, in a few numbers.

Which rows are held out, came before, or are in another script than most is only known when all have been seen. So each
row is read twice. In between stand 30 bytes of it, on the disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]

from sublayer.config import Filter
from sublayer.config.filter import SUSPICIOUS
from sublayer.data.filters import conditions, script
from sublayer.data.portions import Portion, Stream, TextRow
from sublayer.data.report import SHOWN
from sublayer.data.split import draw, key
from sublayer.files import replacing

CHUNK = 10_000
"""Rows that stand in memory as text."""


def faults(settings: Filter) -> list[str]:
    """What is asked of every row by itself, each a bit: what the recipe's filter looks for, and what is reported."""
    both = {**conditions(settings), **conditions(SUSPICIOUS)}
    return [what for what, damaged in both.items() if damaged is not None]


@dataclass(frozen=True)
class Surveying:
    """What every portion is asked. seed: of the hash by which rows are held out."""

    stream: Stream[Any]
    sources: tuple[Any, ...]
    filter: Filter
    seed: int

    def __call__(self, portion: Portion, path: Path) -> None:
        """Look at a portion and write what was found.

        Raises:
            DataError: the text cannot be read. StorageError: the disk refused.
        """
        both = {**conditions(self.filter), **conditions(SUSPICIOUS)}
        tests = [damaged for damaged in both.values() if damaged is not None]
        scripts, left, characters = {"": 0}, dict[str, tuple[int, list[int]]](), 0
        found: dict[str, list[NDArray[Any]]] = {name: [] for name in TYPES}
        rows = self.stream.rows(self.sources[portion.part], portion)
        while chunk := list(islice(rows, CHUNK)):
            texts: list[TextRow] = []
            lines: list[int] = []
            for line, row in chunk:
                if isinstance(row, str):
                    count, shown = left.get(row, (0, []))
                    left[row] = (count + 1, [*shown, line][:SHOWN])
                else:
                    texts.append(row)
                    lines.append(line)
            keys = [tuple(map(key, row)) for row in texts]
            characters += sum(map(len, (text for row in texts for text in row)))
            bits = (sum(1 << bit for bit, test in enumerate(tests) if test(row)) for row in texts)
            named = (scripts.setdefault(script(text), len(scripts)) for row in texts for text in row)
            found["line"].append(np.array(lines, dtype=np.int64))
            found["draw"].append(_numbers(draw(self.seed, row[0])[:8] for row in keys))
            found["same"].append(_numbers(_sum(row) for row in keys))
            found["faults"].append(np.fromiter(bits, dtype=np.uint16, count=len(texts)))
            found["script"].append(np.fromiter(named, dtype=np.uint16))
        arrays = {name: np.concatenate([np.zeros(0, dtype=TYPES[name]), *parts]) for name, parts in found.items()}
        columns = len(self.stream.columns)
        said = {"scripts": list(scripts), "left": left, "characters": characters, "columns": columns}
        with replacing(path) as aside:
            save_file(arrays, aside, {"said": json.dumps(said)})


TYPES = {"line": np.int64, "draw": np.uint64, "same": np.uint64, "faults": np.uint16, "script": np.uint16}


@dataclass(frozen=True)
class Survey:
    """What was found in a portion.

    rows: how many there are. scripts: their names, by number; 0 is none. left: why there is no row of some lines, how
    many, and the first of them. characters: of all texts. columns: texts of a row.
    """

    path: Path
    rows: int
    columns: int
    scripts: Sequence[str]
    left: dict[str, tuple[int, list[int]]]
    characters: int

    @classmethod
    def read(cls, path: Path) -> Survey:
        with _opened(path) as held:
            said: dict[str, Any] = json.loads(held.metadata()["said"])
            (rows,) = cast("tuple[int]", tuple(held.get_slice("line").get_shape()))
        return cls(path, rows, said["columns"], said["scripts"], said["left"], said["characters"])

    def array(self, name: str) -> NDArray[Any]:
        """line: int64. draw, same: uint64, hashes of the text by which a row is held out, and of the whole row.
        faults: uint16, a bit for each of `faults`. script: uint16, of each text. Shape: [rows], script [rows, columns].
        """
        with _opened(self.path) as held:
            found: NDArray[Any] = held.get_tensor(name)
        return found.reshape(self.rows, self.columns) if name == "script" else found


def _opened(path: Path) -> Any:
    return safe_open(path, framework="numpy")


def _numbers(hashes: Iterable[bytes]) -> NDArray[np.uint64]:
    """Eight bytes each, as numbers in the order of the bytes."""
    return np.frombuffer(b"".join(hashes), dtype=">u8").astype(np.uint64)


def _sum(row: TextRow) -> bytes:
    return hashlib.blake2b("\0".join(row).encode("utf-8", "surrogatepass"), digest_size=8).digest()
