"""The options that every benchmark has, and how one is written.

    parser = options.parser(__doc__, name="training-speed")
    parser.add_argument("--rounds", type=int, default=7)
    chosen = options.read(parser, quick={"rounds": 1})
    ...
    print(table(...))
    print(f"Written to {write(chosen, {'rows': rows})}")

`quick` holds the defaults of `--quick`: a tiny shape and one round, so that the whole program runs in seconds.
`tests/benchmarks/test_quick.py` finds every benchmark by its last line, `main()`, and runs it so. Workers end in
`serve(...)` instead, and are not benchmarks.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import machine
import torch

from sublayer.training.runtime import resolve_precision

HERE = Path(__file__).parent
RESULTS = HERE / "results"
# Apart from the results that count.
QUICK_RESULTS = Path("runs/bench-quick")


def parser(description: str | None, *, name: str) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has.

    Args:
        name: of the file of results, without the kind of processor and the suffix.
    """
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("--quick", action="store_true", help="a tiny shape and one round: does it still run?")
    made.add_argument("--simulate", choices=[*machine.SIMULATED], help="run as on a processor of this kind")
    made.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (default: benchmarks/results)")
    made.add_argument("--name", default=name, help="of the file of results (default: %(default)s)")
    return made


def add_threads(made: argparse.ArgumentParser) -> None:
    """Add `--threads`, the numbers of threads that each contender may choose from (`workers.fit_threads`)."""
    cores = machine.cores()
    made.add_argument(
        "--threads",
        type=int,
        nargs="+",
        default=sorted({1, max(1, cores // 2), cores}),
        help="numbers of threads to try; each contender gets the one that is fastest for it (default: %(default)s)",
    )


def precisions(device: str = "cpu") -> list[str]:
    """Return float32, and bfloat16 where sublayer's "auto" would take it: elsewhere it is slow for everybody."""
    fast = resolve_precision("auto", torch.device(device)) is torch.bfloat16
    return ["float32", "bfloat16"] if fast else ["float32"]


def read(made: argparse.ArgumentParser, *, quick: Mapping[str, Any]) -> argparse.Namespace:
    """Return what was asked for; with `--quick`, what was not is taken from `quick`.

    With `--simulate` the program is started again in an environment that holds its libraries to that processor: they
    read it when they are loaded, so it cannot be changed later. Workers inherit it.
    """
    chosen = made.parse_args()
    if unknown := quick.keys() - vars(chosen).keys():
        raise ValueError(f"quick = {sorted(unknown)} are no options of this benchmark: add them to the parser")
    if chosen.quick:
        made.set_defaults(**{"out": QUICK_RESULTS, **quick})
        chosen = made.parse_args()
    if chosen.simulate is not None and machine.simulated() != chosen.simulate:
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **machine.SIMULATED[chosen.simulate]})
    return chosen
