"""From what a model lowers itself to, to what the engine runs: matrices packed in a weight format, buffers placed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sublayer.fast.engine.executable import Executable, Mark, Matrix, bytes_of, packed
from sublayer.fast.engine.program import Operation, Program, numbers, placed

Packed = Callable[[Tensor], object]
"""Told a matrix of which the engine has a copy of its own."""


class Matrices:
    """The packed matrices of the programs of one model; one that several operations use is packed once.

    Args:
        kept_as: the weight format of those that need not be precise; exact: for each the narrowest that keeps it as
            it is. told: of each when it is packed.
    """

    def __init__(self, kept_as: str, told: Packed | None = None) -> None:
        self.kept_as, self._told = kept_as, told
        self._packed: dict[tuple[int, tuple[int, ...], str], tuple[Tensor, Matrix]] = {}

    @property
    def bytes(self) -> int:
        return sum(matrix.data.nbytes for _, matrix in self._packed.values())

    def pack(self, weight: Tensor, kept_as: str) -> Matrix:
        key = weight.data_ptr(), tuple(weight.shape), kept_as
        if key not in self._packed:
            self._packed[key] = weight, packed(numbers(weight).numpy(), kept_as)
            if self._told is not None:
                self._told(weight)
        return self._packed[key][1]


def formats_of(program: Program, kept_as: str) -> list[list[str]]:
    """The weight format of each matrix of each operation, where those that need not be precise are kept in `kept_as`.

    Raises:
        Unavailable: there is no engine here.
    """
    _, logits = program.marks.get("logits", (0, None))
    found: list[list[str]] = []
    for operation in program.operations:
        # Four bits are too few to tell the tokens of a vocabulary apart; llama.cpp keeps them in more, too.
        of_vocabulary = operation.code == "embed" or operation.out is logits
        own = "int8" if kept_as == "int4" and of_vocabulary else kept_as
        wanted = ["float32" if index < operation.precise else own for index in range(len(operation.matrices))]
        # Whole numbers have a scale for 32 columns: only the smallest matrices have others.
        fits = [
            each == "exact" or bytes_of(each, *matrix.shape) > 0
            for each, matrix in zip(wanted, operation.matrices, strict=True)
        ]
        found.append([each if fit else "float32" for each, fit in zip(wanted, fits, strict=True)])
    return found


def bytes_read(program: Program, kept_as: str) -> int:
    """How many bytes of matrices the program reads for one token: of a table of embeddings a row, of a mixture the
    experts that are active."""
    total = 0
    for operation, formats in zip(program.operations, formats_of(program, kept_as), strict=True):
        sizes = [bytes_of(each, *matrix.shape) for each, matrix in zip(formats, operation.matrices, strict=True)]
        match operation.code:
            case "embed":
                total += sizes[0] // operation.matrices[0].shape[0]
            case "mix":
                total += sizes[0] + sum(sizes[1:]) * operation.settings["active"] // operation.settings["experts"]
            case _:
                total += sum(sizes)
    return total


def executable(program: Program, matrices: Matrices) -> Executable:
    """The program with its matrices packed in `matrices`.

    Raises:
        Unavailable: there is no engine here.
    """
    return _Executables(program, matrices).made()


class _Executables:
    def __init__(self, program: Program, matrices: Matrices) -> None:
        self.program, self.kept = program, matrices
        self.tables, self.widths = placed(program)
        self.matrices: list[Matrix] = []
        self.arrays: list[NDArray[np.float32]] = []
        self.place_of: dict[tuple[int, tuple[int, ...]], int] = {}
        self.formats = formats_of(program, matrices.kept_as)

    def made(self) -> Executable:
        pairs = zip(self.program.operations, self.formats, strict=True)
        operations = [self.operation(each, formats) for each, formats in pairs]
        marks = {
            name: Mark(count, self.tables[x.number], self.widths[self.tables[x.number]])
            for name, (count, x) in self.program.marks.items()
        }
        return Executable(operations, self.matrices, self.arrays, self.widths, marks)

    def operation(self, operation: Operation, formats: Sequence[str]) -> dict[str, Any]:
        source = operation.source if operation.source is not None else operation.out
        fields: dict[str, Any] = {
            "code": operation.code,
            "flags": sorted(operation.flags),
            "activation": operation.activation,
            "in_": self.tables[source.number],
            "out": self.tables[operation.out.number],
            "column": source.column,
            "width": source.width,
            "out_column": operation.out.column,
            "matrix": len(self.matrices),
        }
        for matrix, kept_as in zip(operation.matrices, formats, strict=True):
            self.matrices.append(self.kept.pack(matrix, kept_as))
        for name, value in operation.settings.items():
            if isinstance(value, Tensor):
                fields[name] = self.array(value)
            elif value is not None:
                fields[name] = value
        return fields

    def array(self, tensor: Tensor) -> int:
        """The place of its numbers; tables that layers share are there once."""
        key = tensor.data_ptr(), tuple(tensor.shape)
        if key not in self.place_of:
            self.place_of[key] = len(self.arrays)
            self.arrays.append(numbers(tensor).numpy())
        return self.place_of[key]
