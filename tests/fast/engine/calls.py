"""Calls the engine's library with tensors: matrices, products, programs."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sublayer.fast.engine.library import (
    ACTIVATIONS,
    CODES,
    FLAGS,
    FORMATS,
    CCall,
    CMatrix,
    COp,
    instruction_sets,
    library,
)  # fmt: skip

INSTRUCTION_SETS = instruction_sets()


class Matrix:
    """A matrix [out, in], packed."""

    def __init__(self, weight: Tensor, kept_as: str) -> None:
        self.out, self.columns = weight.shape
        size = library().matrix_bytes(FORMATS[kept_as], self.out, self.columns)
        assert size > 0
        assert size % 64 == 0
        self._memory = torch.empty(size, dtype=torch.uint8)
        assert self._memory.data_ptr() % 64 == 0
        given = weight.float().contiguous()
        self.struct = CMatrix(FORMATS[kept_as], self.out, self.columns, self._memory.data_ptr())
        library().matrix_pack(FORMATS[kept_as], self.out, self.columns, given.data_ptr(), self.struct.data)

    def unpack(self) -> Tensor:
        """The numbers that it stands for."""
        found = torch.full((self.out, self.columns), torch.nan)
        library().matrix_unpack(ctypes.byref(self.struct), found.data_ptr())
        return found


def rounded(x: Tensor) -> Tensor:
    """What a product with whole numbers makes of its input. Shape: [..., in] -> the same."""
    x = x.contiguous()
    found = torch.full_like(x, torch.nan)
    library().round_input(x.numel() // x.shape[-1], x.shape[-1], x.data_ptr(), found.data_ptr())
    return found


def multiply(isa: str, matrix: Matrix, x: Tensor, threads: int = 1) -> Tensor:
    """x matrix^T, by the engine. Shape: x [rows, in] -> [rows, out]."""
    x = x.contiguous()
    found = torch.full((x.shape[0], matrix.out), torch.nan)
    struct = ctypes.byref(matrix.struct)
    assert not library().multiply(isa.encode(), struct, x.shape[0], x.data_ptr(), found.data_ptr(), threads)
    return found


def operation(code: str, *, flags: Sequence[str] = (), activation: str = "none", **fields: Any) -> dict[str, Any]:
    """The fields of an `Op`. Tensors among them are what is pointed to."""
    return {
        "code": CODES[code], "flags": sum(FLAGS[flag] for flag in flags), "activation": ACTIVATIONS[activation],
        **fields,
    }  # fmt: skip


class Program:
    """An engine that runs some operations over buffers of these widths."""

    def __init__(
        self, isa: str, operations: Sequence[dict[str, Any]], matrices: Sequence[Matrix], widths: Sequence[int],
        threads: int = 1,
    ) -> None:  # fmt: skip
        self._kept: list[Any] = [*matrices]
        self.widths, self.count = widths, len(operations)
        ops = (COp * self.count)(*(COp(**self._pointed(fields)) for fields in operations))
        structs = (CMatrix * max(len(matrices), 1))(*(matrix.struct for matrix in matrices))
        sizes = (ctypes.c_int64 * len(widths))(*widths)
        self._kept += [ops, structs, sizes]
        self._engine = library().engine_new(isa.encode(), ops, self.count, structs, sizes, len(widths), threads)
        assert self._engine

    def __del__(self) -> None:
        library().engine_free(self._engine)

    def run(self, tokens: Tensor, *, result: int = 0, memory: Sequence[Tensor] = (), **call: Any) -> Tensor:
        """What stands in the buffer `result` in the end. Shape: tokens [R, n] -> [R, n, width]."""
        tokens = tokens.contiguous()
        found = torch.full((*tokens.shape, self.widths[result]), torch.nan)
        parts = (ctypes.c_void_p * max(len(memory), 1))(*(part.data_ptr() for part in memory))
        fields = self._pointed({"tokens": tokens, "count": self.count, "result": result, "out": found, **call})
        struct = CCall(rows=tokens.shape[0], fresh=tokens.shape[1], memory=ctypes.addressof(parts), **fields)
        assert not library().engine_run(self._engine, ctypes.byref(struct))
        return found

    def _pointed(self, fields: dict[str, Any]) -> dict[str, Any]:
        tensors = [value for value in fields.values() if isinstance(value, Tensor)]
        assert all(tensor.is_contiguous() for tensor in tensors)
        self._kept += tensors
        return {name: value.data_ptr() if isinstance(value, Tensor) else value for name, value in fields.items()}


def program(
    isa: str, operations: Sequence[dict[str, Any]], matrices: Sequence[Matrix], widths: Sequence[int], tokens: Tensor,
    *, threads: int = 1, **call: Any,
) -> Tensor:  # fmt: skip
    """What one run of a program finds; the arguments are those of `Program` and of its `run`."""
    return Program(isa, operations, matrices, widths, threads).run(tokens, **call)


def run(
    isa: str,
    code: str,
    x: Tensor,
    out: Tensor | None = None,
    *,
    matrices: Sequence[Matrix] = (),
    threads: int = 1,
    call: dict[str, Any] | None = None,
    **fields: Any,
) -> Tensor:
    """What stands in a buffer after one operation.

    Args:
        x: what stands in the buffer that is read. out: what stands before in the one that is written; if it is None,
            the operation works in place. fields: those of `operation`; call: those of `Call`.

    Shape: x [R, n, ...], out [R, n, ...] -> that of out, or of x.
    """
    tables = [x] if out is None else [x, out]
    # A buffer is filled by an embedding whose token i is row i.
    filled = [Matrix(table.reshape(-1, table.shape[2]), "float32") for table in tables]
    fills = [operation("embed", **{"in_": i, "out": i, "matrix": i, "a": 1.0}) for i in range(len(tables))]
    last = len(tables) - 1
    done = operation(code, **{"in_": 0, "out": last, "matrix": last + 1, "width": x.shape[2], **fields})
    tokens = torch.arange(x.shape[0] * x.shape[1]).view(x.shape[:2])
    return program(
        isa, [*fills, done], [*filled, *matrices], [table.shape[2] for table in tables], tokens, result=last,
        threads=threads, **(call or {}),
    )  # fmt: skip
