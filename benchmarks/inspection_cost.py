"""What looking costs: taps that nobody listens to, against a build without taps; and listening to one layer.

    python benchmarks/inspection_cost.py

Contenders: sublayer; the same a second time, whose ratio says what is noise; a copy of the package with all taps cut
out of its source (`without_taps.py`); and sublayer with one layer of its twelve recorded: its attention weights (which
takes that layer off the fused path), its heads' outputs, its stream; and the attention weights of all layers.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import options as options_of
import without_taps
from summary import Summary, table, write
from workers import REST, Worker

OURS, AGAIN, WITHOUT = "sublayer", "sublayer again", "without taps"
LAYERS = {"gpt2": 5, "base": 2, "mini-lm": 1}
"""By shape, the layer that is listened to. The first two have twelve layers, the translator six a side."""
CALLS = {"forward": 3, "training step": 1, "32 steps of decoding": 2}
"""What is timed, and how often in a round, the median of which counts; one call more goes before."""


def main() -> None:
    options = _options()
    worker = Path(__file__).with_name("inspection_worker.py")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        cut = without_taps.write(Path(folder))
        for shape in options.shapes:
            rows += _measure(shape, worker, folder, options)
    print(machine.described(machine.facts()))
    print(f"{cut} calls of taps were cut out of the copy. Ratios of times, median (quartiles) of the rounds.\n")
    print(_table(rows))
    print(f"\nWritten to {write(options, {'taps_cut': cut, 'rows': rows})}")


def _measure(shape: str, script: Path, folder: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    paths = {OURS: "", AGAIN: "", WITHOUT: folder}
    common = {"shape": shape, "seed": options.seed}
    workers = {name: Worker(script, {**common, "contender": name, "path": path}) for name, path in paths.items()}
    # Who listens does so in the first one's process, to the very model that is compared with.
    contenders: dict[str, tuple[Worker, list[str]]] = {name: (worker, []) for name, worker in workers.items()}
    contenders |= {name: (workers[OURS], patterns) for name, patterns in _listening(shape).items()}
    try:
        _require_equal(workers, folder)
        rows: list[dict[str, Any]] = []
        for work in options.work:
            calls = CALLS[work]
            seconds: dict[str, list[float]] = {name: [] for name in contenders}
            # The first round warms up.
            for number in range(-1, options.rounds):
                for name, (asked, patterns) in contenders.items():
                    time.sleep(REST)
                    answer = asked.ask({"work": work, "calls": calls, "listen": patterns, "clock": options.clock})
                    if number >= 0:
                        seconds[name].append(answer["seconds"])
            rows.append(
                {
                    "shape": shape,
                    "work": work,
                    "seconds": {name: Summary.of(given).plain() for name, given in seconds.items()},
                    "against_sublayer": {
                        name: Summary.of_ratios(given, seconds[OURS]).plain()
                        for name, given in seconds.items()
                        if name != OURS
                    },
                }
            )
            print(_line(rows[-1]), flush=True)
        return rows
    finally:
        for worker in workers.values():
            worker.close()


def _listening(shape: str) -> dict[str, list[str]]:
    """Who listens, and to which taps."""
    number = LAYERS[shape]
    layer = f"decoder.layers.{number}"
    return {
        f"weights of layer {number}": [f"{layer}.self_attention.weights"],
        f"heads of layer {number}": [f"{layer}.self_attention.heads"],
        f"stream of layer {number}": [f"{layer}.stream"],
        "weights of all layers": ["*.weights"],
    }


def _require_equal(workers: dict[str, Worker], folder: str) -> None:
    """The same model computes the same in all of them, and the copy without taps is what one of them runs."""
    checks = {name: worker.started["check"] for name, worker in workers.items()}
    for name, check in checks.items():
        if check != checks[OURS]:
            raise RuntimeError(f"'{name}' computes {check}, sublayer {checks[OURS]}: this is not the same work")
    for name, worker in workers.items():
        if worker.started["package"].startswith(folder) != (name == WITHOUT):
            raise RuntimeError(f"'{name}' runs {worker.started['package']}")


def _line(row: dict[str, Any]) -> str:
    ratios = ", ".join(f"{name} {ratio['median']:.3f}" for name, ratio in row["against_sublayer"].items())
    return f"{row['shape']}, {row['work']}: {1000 * row['seconds'][OURS]['median']:.1f} ms; {ratios}"


def _table(rows: list[dict[str, Any]]) -> str:
    def cell(row: dict[str, Any], name: str) -> str:
        return Summary(**row["against_sublayer"][name]).shown(3)

    parts = ["weights of layer", "heads of layer", "stream of layer", "weights of all layers"]
    header = ["shape, work", "sublayer, ms", "again (noise)", WITHOUT, *(f"recording {part}" for part in parts)]
    lines = [
        [
            f"{row['shape']}, {row['work']}",
            f"{1000 * row['seconds'][OURS]['median']:.1f}",
            *(
                cell(row, name)
                for part in (AGAIN, WITHOUT, *parts)
                for name in row["against_sublayer"]
                if name.startswith(part)
            ),
        ]
        for row in rows
    ]
    return table(header, lines)


def _options() -> argparse.Namespace:
    parser = options_of.parser(__doc__, name="inspection-cost")
    parser.add_argument("--shapes", nargs="+", default=["gpt2", "base"], choices=[*LAYERS])
    parser.add_argument("--work", nargs="+", default=list(CALLS), choices=list(CALLS))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument(
        "--clock", default="wall", choices=["wall", "process"], help="process: time computed, where others compute too"
    )
    parser.add_argument("--seed", type=int, default=0)
    return options_of.read(parser, quick={"shapes": ["mini-lm"], "work": ["training step"], "rounds": 1})


if __name__ == "__main__":
    main()
