"""A program that can be run: its matrices packed in a weight format, its tables and structures where C++ reads them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

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
    instruction_set,
    library,
)  # fmt: skip
from sublayer.fast.engine.program import Operation, Program, numbers, placed

ALIGNED = 64


class Packed:
    """A matrix as the products read it. bytes: what it takes in memory.

    Whole numbers have a scale for 32 columns, so a matrix whose columns do not come in 32s stays in float32: only the
    smallest have such.
    """

    def __init__(self, weight: Tensor, kept_as: str) -> None:
        out, columns = weight.shape
        given = numbers(weight)
        number = (
            library().exact_format(out, columns, given.data_ptr()) if kept_as == "exact" else FORMATS[kept_as]
        )  # fmt: skip
        if not library().matrix_bytes(number, out, columns):
            number = FORMATS["float32"]
        self.bytes = library().matrix_bytes(number, out, columns)
        self._memory = torch.empty(self.bytes + ALIGNED, dtype=torch.uint8)
        start = self._memory.data_ptr()
        data = start + -start % ALIGNED
        library().matrix_pack(number, out, columns, given.data_ptr(), data)
        self.struct = CMatrix(number, out, columns, data)


class Matrices:
    """The packed matrices of the programs of one model; one that several operations use is packed once.

    Args:
        kept_as: the weight format of those that need not be precise; exact: for each the narrowest that keeps it as
            it is.
    """

    def __init__(self, kept_as: str) -> None:
        self.kept_as = kept_as
        self._packed: dict[tuple[int, tuple[int, ...], str], tuple[Tensor, Packed]] = {}

    @property
    def bytes(self) -> int:
        return sum(packed.bytes for _, packed in self._packed.values())

    def pack(self, weight: Tensor, kept_as: str) -> CMatrix:
        key = weight.data_ptr(), tuple(weight.shape), kept_as
        if key not in self._packed:
            self._packed[key] = weight, Packed(weight, kept_as)
        return self._packed[key][1].struct


@dataclass(slots=True)
class Inputs:
    """What a run reads and writes besides its tokens.

    cache: keys and values of the tokens before, to which those of the new ones are added, [layers, 2, R, G, C, d];
    cache_rows: in which row of the cache each of a row's positions stands, [R, C] int32; unset: all in its own.
    held: how many positions it holds. padding: how many of them are padding in each row, [R]. lengths: real tokens of
    each row, [R], where there is no cache. memory: keys, then values, of the source of each layer, [B, G, S, d];
    source_lengths: [B].
    """

    cache: Tensor | None = None
    cache_rows: Tensor | None = None
    held: int = 0
    padding: Tensor | None = None
    lengths: Tensor | None = None
    memory: Sequence[Tensor] = ()
    source_lengths: Tensor | None = None


class Engine:
    """Runs one program.

    Args:
        matrices: where its matrices are packed. threads: how many compute.

    Raises:
        Unavailable: there is no engine here.
    """

    def __init__(self, program: Program, matrices: Matrices, threads: int) -> None:
        self._held: list[Tensor] = []
        # Its buffers are its own, and ctypes lets other threads of Python run meanwhile. A lock for each process: in
        # one that is forked while another thread runs, nobody would release that of its parent.
        self._one_at_a_time: dict[int, Lock] = {}
        self._tables, widths = placed(program)
        structs: list[CMatrix] = []
        _, logits = program.marks.get("logits", (0, None))
        self._of_vocabulary = {id(o) for o in program.operations if o.code == "embed" or o.out is logits}
        self._ops = (COp * len(program.operations))(
            *(self._op(operation, matrices, structs) for operation in program.operations)
        )
        self._matrices = (CMatrix * max(len(structs), 1))(*structs)
        self._widths = (ctypes.c_int64 * len(widths))(*widths)
        self._marks = {name: (count, self._tables[x.number], x.width) for name, (count, x) in program.marks.items()}
        self.count = len(program.operations)
        self.matrices = matrices
        self._engine = library().engine_new(
            instruction_set().encode(), self._ops, self.count, self._matrices, self._widths, len(widths), threads
        )
        if not self._engine:
            raise MemoryError("the engine has no memory")

    def __del__(self) -> None:
        if getattr(self, "_engine", None):
            library().engine_free(self._engine)

    def run(self, tokens: Tensor, until: str | None, inputs: Inputs) -> Tensor:
        """Run the program for new tokens up to the mark `until`, or to its end, and return what is marked.

        Shape: tokens [R, n] int64 -> [R * n, width of what is marked]; [R * n, 0] without a mark.

        Raises:
            IndexError: a token is not in the vocabulary.
        """
        width = 0 if until is None else self._marks[until][2]
        out = torch.empty(tokens.numel(), width)
        self._call(tokens, until, inputs, out=out.data_ptr() if width else None)
        return out

    def best(self, tokens: Tensor, until: str, inputs: Inputs, count: int) -> tuple[Tensor, Tensor]:
        """The `count` largest numbers of what is marked: their log-softmax, the largest first, and their places.

        Shape: tokens [R, n] int64 -> [R * n, count] float32 and int64.

        Raises:
            IndexError: a token is not in the vocabulary.
        """
        logs, places = torch.empty(tokens.numel(), count), torch.empty(tokens.numel(), count, dtype=torch.int64)
        self._call(tokens, until, inputs, best=count, best_columns=places.data_ptr(), best_logs=logs.data_ptr())
        return logs, places

    def _call(self, tokens: Tensor, until: str | None, inputs: Inputs, **results: int | None) -> None:
        """Run, and write to the results, which are fields of `Call`."""
        tokens = tokens.contiguous()
        count, table, _ = (self.count, 0, 0) if until is None else self._marks[until]
        memory, cache = inputs.memory, inputs.cache
        pointers = (ctypes.c_void_p * max(len(memory), 1))(*(part.data_ptr() for part in memory))
        call = CCall(
            tokens=tokens.data_ptr(),
            rows=tokens.shape[0],
            fresh=tokens.shape[1],
            held=inputs.held,
            capacity=0 if cache is None else cache.shape[4],
            cache=_pointer(cache),
            cache_rows=_pointer(inputs.cache_rows),
            padding=_pointer(inputs.padding),
            lengths=_pointer(inputs.lengths),
            sources=memory[0].shape[0] if memory else 0,
            source_length=memory[0].shape[2] if memory else 0,
            memory=ctypes.addressof(pointers),
            source_lengths=_pointer(inputs.source_lengths),
            count=count,
            result=table,
            **results,
        )
        with self._one_at_a_time.setdefault(os.getpid(), Lock()):
            done = library().engine_run(self._engine, ctypes.byref(call))
        match done:
            case 0:
                return
            case -2:
                raise IndexError("a token is not in the model's vocabulary")
            case _:
                raise MemoryError(f"the engine has no memory for {tokens.numel()} tokens")

    def _op(self, operation: Operation, matrices: Matrices, structs: list[CMatrix]) -> COp:
        source = operation.source if operation.source is not None else operation.out
        fields: dict[str, object] = {
            "code": CODES[operation.code],
            "flags": sum(FLAGS[flag] for flag in operation.flags),
            "activation": ACTIVATIONS[operation.activation],
            "in_": self._tables[source.number],
            "out": self._tables[operation.out.number],
            "column": source.column,
            "width": source.width,
            "out_column": operation.out.column,
            "matrix": len(structs),
        }
        # Four bits are too few to tell the tokens of a vocabulary apart; llama.cpp keeps them in more, too.
        kept_as = "int8" if matrices.kept_as == "int4" and id(operation) in self._of_vocabulary else matrices.kept_as
        for index, matrix in enumerate(operation.matrices):
            structs.append(matrices.pack(matrix, "float32" if index < operation.precise else kept_as))
        for name, value in operation.settings.items():
            if isinstance(value, Tensor):
                self._held.append(numbers(value))
                value = self._held[-1].data_ptr()
            fields[name] = value
        return COp(**fields)


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
