"""A program in the form that the engine runs and a file keeps: numbers, packed matrices and tables. Needs no torch."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sublayer.fast.engine.library import FORMATS, CMatrix, library

ALIGNED = 64
"""Bytes that matrices begin at multiples of."""
TABLES = "weight", "bias", "table", "table2"
"""The settings of an operation that point to numbers."""


@dataclass(frozen=True, eq=False, slots=True)
class Matrix:
    """A matrix [out, columns] in the format `kept_as`, as the products read it. data: uint8, aligned."""

    kept_as: str
    out: int
    columns: int
    data: NDArray[np.uint8]

    @property
    def struct(self) -> CMatrix:
        """As C++ reads it, while this lives."""
        return CMatrix(FORMATS[self.kept_as], self.out, self.columns, self.data.ctypes.data)


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a program may be left: after `count` operations, with what stands in the table of `width` columns."""

    count: int
    table: int
    width: int


@dataclass(frozen=True, eq=False, slots=True)
class Executable:
    """A program, its buffers placed in tables of these widths.

    operations: of each the fields of `Op` (`cpp/engine.h`) by name: code, activation and flags by their names; `matrix`
    counts in `matrices`, and what points to numbers counts in `arrays`, of float32.
    """

    operations: Sequence[Mapping[str, Any]]
    matrices: Sequence[Matrix]
    arrays: Sequence[NDArray[np.float32]]
    widths: Sequence[int]
    marks: Mapping[str, Mark]


def bytes_of(kept_as: str, out: int, columns: int) -> int:
    """What a matrix takes once packed; 0 where it cannot be kept so."""
    return library().matrix_bytes(FORMATS[kept_as], out, columns)


def packed(numbers: NDArray[np.float32], kept_as: str) -> Matrix:
    """Round and lay out a matrix, which can be kept so.

    Shape: numbers [out, columns], side by side.

    Args:
        kept_as: "exact" is the narrowest format that keeps the numbers as they are.
    """
    out, columns = numbers.shape
    if kept_as == "exact":
        exact: int = library().exact_format(out, columns, numbers.ctypes.data)
        kept_as = list(FORMATS)[exact]
    data = _room(kept_as, out, columns)
    library().matrix_pack(FORMATS[kept_as], out, columns, numbers.ctypes.data, data.ctypes.data)
    return Matrix(kept_as, out, columns, data)


def taken(matrix: Matrix, rows: NDArray[np.int64]) -> Matrix:
    """Some rows of a matrix as one of its own. Shape: rows [count], each of the matrix."""
    data = _room(matrix.kept_as, len(rows), matrix.columns)
    library().matrix_take(ctypes.byref(matrix.struct), len(rows), rows.ctypes.data, data.ctypes.data)
    return Matrix(matrix.kept_as, len(rows), matrix.columns, data)


def _room(kept_as: str, out: int, columns: int) -> NDArray[np.uint8]:
    """Memory for a packed matrix."""
    size = bytes_of(kept_as, out, columns)
    if not size:
        raise ValueError(f"a matrix of {columns} columns cannot be kept in {kept_as}")
    memory = np.empty(size + ALIGNED, np.uint8)
    begin = -memory.ctypes.data % ALIGNED
    return memory[begin : begin + size]
