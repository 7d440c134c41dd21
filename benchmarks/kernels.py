"""How fast the engine's products are: one map, by weight format, instruction set and number of rows.

    python benchmarks/kernels.py [--isa avx2] [--threads 1 2]

GMAC/s: thousand million products and sums a second (twice as many floating-point operations); GB/s: of weights that are
read. The input is rounded to whole numbers each time, as it is in a model.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from typing import Any

import machine
import options
import torch
from summary import table, write

from sublayer.fast.engine.library import CODES, FORMATS, CCall, CMatrix, COp, instruction_sets, library

SHAPES = ((1024, 256), (256, 1024), (8000, 256), (768, 3072), (2048, 512), (49152, 576))
"""Columns of the product and of its input: a small translation model's, GPT-2's, a base one's, SmolLM2's vocabulary."""


def main() -> None:
    chosen = _options()
    rows = [
        measured(out, columns, kept_as, isa, count, threads, chosen.seconds)
        for out, columns in SHAPES[: chosen.shapes]
        for kept_as in chosen.formats
        for isa in chosen.isa
        for count in chosen.rows
        for threads in chosen.threads
    ]
    print(f"\n{machine.described(machine.facts())}\n\n{_table(rows)}")
    print(f"\nWritten to {write(chosen, {'rows': rows})}")


def measured(out: int, columns: int, kept_as: str, isa: str, rows: int, threads: int, seconds: float) -> dict[str, Any]:
    """The fastest of many products, in microseconds."""
    size = library().matrix_bytes(FORMATS[kept_as], out, columns)
    memory, weight, vectors = (
        torch.empty(size, dtype=torch.uint8),
        torch.randn(out, columns),
        torch.randn(rows, columns),
    )
    library().matrix_pack(FORMATS[kept_as], out, columns, weight.data_ptr(), memory.data_ptr())
    matrices = (CMatrix * 2)(
        CMatrix(FORMATS["float32"], rows, columns, _packed(vectors).data_ptr()),
        CMatrix(FORMATS[kept_as], out, columns, memory.data_ptr()),
    )
    # Products read two buffers by turns, as an input that is the same is rounded once.
    embed = [COp(code=CODES["embed"], in_=buffer, out=buffer, a=1.0) for buffer in (0, 1)]
    linear = [COp(code=CODES["linear"], in_=i % 2, out=2, matrix=1, width=columns) for i in range(20)]
    ops = (COp * 22)(*embed, *linear)
    widths = (ctypes.c_int64 * 3)(columns, columns, out)
    engine = library().engine_new(isa.encode(), ops, 22, matrices, widths, 3, threads)
    tokens = torch.arange(rows)

    def taken(count: int) -> float:
        call = CCall(tokens=tokens.data_ptr(), rows=rows, fresh=1, count=count)
        start = time.perf_counter()
        library().engine_run(engine, ctypes.byref(call))
        return time.perf_counter() - start

    products, end = max(2, min(20, int(2e9 / (rows * out * columns)))), time.perf_counter() + seconds
    taken(2 + products)
    # Each of its own: what disturbs the shorter run would make a difference of the two too small.
    longer, shorter = list[float](), list[float]()
    while time.perf_counter() < end or len(longer) < 3:
        longer.append(taken(2 + products))
        shorter.append(taken(2))
    library().engine_free(engine)
    took = (min(longer) - min(shorter)) / products
    return {
        "out": out, "in": columns, "format": kept_as, "isa": isa, "rows": rows, "threads": threads,
        "microseconds": took * 1e6, "gmacs": rows * out * columns / took / 1e9, "gbytes": size / took / 1e9,
    }  # fmt: skip


def _packed(weight: torch.Tensor) -> torch.Tensor:
    packed = torch.empty(library().matrix_bytes(0, *weight.shape), dtype=torch.uint8)
    library().matrix_pack(0, *weight.shape, weight.data_ptr(), packed.data_ptr())
    KEPT.append(packed)
    return packed


KEPT: list[torch.Tensor] = []


def _table(rows: list[dict[str, Any]]) -> str:
    return table(
        ["map, format, instruction set", "rows", "threads", "us", "GMAC/s", "GB/s"],
        [
            [f"{row['in']} to {row['out']}, {row['format']}, {row['isa']}", str(row["rows"]), str(row["threads"]),
             f"{row['microseconds']:.1f}", f"{row['gmacs']:.1f}", f"{row['gbytes']:.1f}"]
            for row in rows
        ],
    )  # fmt: skip


def _options() -> argparse.Namespace:
    parser = options.parser(__doc__, name="kernels")
    parser.add_argument("--formats", nargs="+", default=[*FORMATS], choices=[*FORMATS])
    parser.add_argument("--isa", nargs="+", default=instruction_sets(), help="instruction sets (default: %(default)s)")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 32, 128])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--shapes", type=int, default=len(SHAPES), help="how many of the maps (default: all)")
    parser.add_argument("--seconds", type=float, default=0.1, help="for each (default: %(default)s)")
    return options.read(parser, quick={"shapes": 1, "rows": [1], "seconds": 0.0, "isa": instruction_sets()[:1]})


if __name__ == "__main__":
    main()
