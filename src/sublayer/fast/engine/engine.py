"""What runs a program: its structures where C++ reads them, and its calls. Arrays are addresses.

Whoever calls holds the arrays: `fast/decoding/tensors.py` of torch, `decoder.py` of numpy.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from sublayer.fast.engine.executable import TABLES, Executable
from sublayer.fast.engine.library import (
    ACTIVATIONS,
    CODES,
    FLAGS,
    CCall,
    CMatrix,
    COp,
    instruction_set,
    library,
)


@dataclass(slots=True)
class Addresses:
    """What a run reads and writes besides its tokens, as fields of `Call` (`cpp/engine.h`).

    cache: [layers, 2, R, G, capacity, d], which holds `held` positions. cache_rows: [R, capacity]. padding: [R].
    lengths: [R]. memory: an array of addresses: keys, then values, of each layer, [sources, G, source_length, d].
    source_lengths: [sources].
    """

    cache: int | None = None
    cache_rows: int | None = None
    capacity: int = 0
    held: int = 0
    padding: int | None = None
    lengths: int | None = None
    memory: int | None = None
    sources: int = 0
    source_length: int = 0
    source_lengths: int | None = None


def addresses_of(parts: Sequence[int]) -> ctypes.Array[ctypes.c_void_p]:
    """An array of addresses, whose own is its `ctypes.addressof`."""
    return (ctypes.c_void_p * max(len(parts), 1))(*parts)


class Engine:
    """Runs one program.

    Args:
        threads: how many compute.

    Raises:
        Unavailable: there is no engine here.
    """

    def __init__(self, program: Executable, threads: int) -> None:
        # Its buffers are its own, and ctypes lets other threads of Python run meanwhile. A lock a process: in one
        # that is forked while another thread runs, nobody would release that of its parent.
        self._one_at_a_time: dict[int, Lock] = {}
        self.program = program
        self._ops = (COp * len(program.operations))(*(_op(program, each) for each in program.operations))
        structs = [matrix.struct for matrix in program.matrices]
        self._matrices = (CMatrix * max(len(structs), 1))(*structs)
        self._widths = (ctypes.c_int64 * len(program.widths))(*program.widths)
        self.count = len(program.operations)
        self._engine = library().engine_new(
            instruction_set().encode(),
            self._ops,
            self.count,
            self._matrices,
            self._widths,
            len(program.widths),
            threads,
        )
        if not self._engine:
            raise MemoryError("the engine has no memory")

    def __del__(self) -> None:
        if getattr(self, "_engine", None):
            library().engine_free(self._engine)

    def width(self, mark: str | None) -> int:
        """How many numbers of each token stand at the mark; none where there is no mark."""
        return 0 if mark is None else self.program.marks[mark].width

    def call(
        self, tokens: int, rows: int, fresh: int, until: str | None, given: Addresses, *, out: int | None = None,
        best: int = 0, best_columns: int | None = None, best_logs: int | None = None, shortlist: int | None = None,
    ) -> None:  # fmt: skip
        """Run the program for new tokens up to the mark `until`, or to its end.

        Args:
            tokens: the address of int64 [rows, fresh]. out: of float32 [rows * fresh, width of what is marked], to be
                written. best: how many of the largest of these are wanted: their places, int64 [rows * fresh, best],
                and their log-softmax, float32. shortlist: of a `CShortlist`, among which they are.

        Raises:
            IndexError: a token is not in the vocabulary. ValueError: there is a shortlist, and what is marked is no
                product.
        """
        marks = self.program.marks
        call = CCall(
            tokens=tokens,
            rows=rows,
            fresh=fresh,
            held=given.held,
            capacity=given.capacity,
            cache=given.cache,
            cache_rows=given.cache_rows,
            padding=given.padding,
            lengths=given.lengths,
            sources=given.sources,
            source_length=given.source_length,
            memory=given.memory,
            source_lengths=given.source_lengths,
            count=self.count if until is None else marks[until].count,
            result=0 if until is None else marks[until].table,
            out=out,
            best=best,
            best_columns=best_columns,
            best_logs=best_logs,
            shortlist=shortlist,
        )
        with self._one_at_a_time.setdefault(os.getpid(), Lock()):
            done = library().engine_run(self._engine, ctypes.byref(call))
        match done:
            case 0:
                return
            case -2:
                raise IndexError("a token is not in the model's vocabulary")
            case -3:
                raise ValueError("a shortlist needs a product at the end")
            case _:
                raise MemoryError(f"the engine has no memory for {rows * fresh} tokens")


def _op(program: Executable, operation: Mapping[str, Any]) -> COp:
    fields = dict(operation)
    fields["code"] = CODES[fields["code"]]
    fields["flags"] = sum(FLAGS[flag] for flag in fields["flags"])
    fields["activation"] = ACTIVATIONS[fields["activation"]]
    for name in TABLES:
        if name in fields:
            fields[name] = program.arrays[fields[name]].ctypes.data
    return COp(**fields)
