"""What a product costs whose shape the library has not met yet, beside one that it has.

    python benchmarks/new_shapes.py

oneDNN makes a program for each shape, and keeps it. Batches of text have many shapes: what is found here is why
`data/batching.py` gives them few, and why `training/losses.py` fills up the rows of the projection.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import machine
import options
import torch
from summary import table, write
from torch.nn import functional as F

MAPS = ((256, 768), (256, 1024), (1024, 256), (8000, 256))
"""Columns of x and of its product: the demo's model, and the gradient of its projection."""


def main() -> None:
    chosen = _options()
    torch.set_num_threads(chosen.threads)
    rows = [
        measured(width, out, dtype, range(1301, 1301 + 37 * chosen.shapes, 37), chosen.again)
        for dtype in options.precisions()
        for width, out in MAPS
    ]
    print(f"\n{machine.described(machine.facts())}\n\n{_table(rows)}")
    print(f"\nWritten to {write(chosen, {'rows': rows})}")


def measured(width: int, out: int, dtype: str, counts: range, again: int) -> dict[str, Any]:
    """Milliseconds of the first product of each number of rows, and of the fastest of `again` more; medians."""
    kind = getattr(torch, dtype)
    weight = torch.full((out, width), 0.5, dtype=kind)
    first: list[float] = []
    later: list[float] = []
    for count in counts:
        x = torch.full((count, width), 0.5, dtype=kind)
        first.append(_milliseconds(lambda x=x: F.linear(x, weight)))
        later.append(min(_milliseconds(lambda x=x: F.linear(x, weight)) for _ in range(again)))
    return {
        "map": f"{width} x {out}",
        "dtype": dtype,
        "first": statistics.median(first),
        "later": statistics.median(later),
    }


def _milliseconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def _table(rows: list[dict[str, Any]]) -> str:
    return table(
        ["columns of x x of the product", "first, ms", "later, ms"],
        [[f"{row['map']}, {row['dtype']}", f"{row['first']:.2f}", f"{row['later']:.2f}"] for row in rows],
    )


def _options() -> argparse.Namespace:
    parser = options.parser(__doc__, name="new-shapes")
    parser.add_argument("--shapes", type=int, default=12, help="numbers of rows to try (default: %(default)s)")
    parser.add_argument("--again", type=int, default=5, help="calls after the first (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=machine.cores())
    return options.read(parser, quick={"shapes": 2, "again": 1})


if __name__ == "__main__":
    main()
