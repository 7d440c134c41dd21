"""Training speed of language models in tokens per second: sublayer's trainer beside `transformers` in a plain loop.

    python benchmarks/language_training_speed.py
    python benchmarks/language_training_speed.py --shapes llama-15m --precisions bfloat16 --rows 16

Both begin from the same weights and take the same batches of full rows; a step is forward, loss, backward, clipping and
fused AdamW. Before anything is timed, loss and gradient of one batch must be equal.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import machine
import options as options_of
from language_models import PRESETS, folder_of, prompts
from summary import Summary, table, write
from workers import Message, Worker, fit_threads, interleave

HERE = Path(__file__).parent
OURS, RIVAL = "sublayer", "transformers"
EQUAL = 1e-4


def main() -> None:
    options = _options()
    print(f"{machine.described(machine.facts())}\n")
    rows = [_measure(shape, precision, options) for shape in options.shapes for precision in options.precisions]
    print("\n" + _table(rows))
    print(f"\nWritten to {write(options, {'rows': rows})}")


def _measure(shape: str, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    folder = folder_of(shape)
    given = prompts(shape, folder, (options.rounds + 1) * options.steps * options.rows, [options.length])
    batches = [given[first : first + options.rows] for first in range(0, len(given), options.rows)]
    settings = {"folder": str(folder), "precision": precision}
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(Worker(HERE / "language_training_worker.py", settings | {"contender": name}))
            for name in (OURS, RIVAL)
        }
        checked = _check(workers, batches[0], precision)

        def ask(number: int) -> Message:
            return {"batches": batches[number * options.steps : (number + 1) * options.steps]}

        threads = fit_threads(workers, ask(0), options.threads)
        # The first round warms up.
        interleave(workers, lambda _: ask(0), 1)
        answers = interleave(workers, lambda number: ask(number + 1), options.rounds)
    tokens = options.steps * options.rows * options.length
    seconds = {name: [a["seconds"] for a in several] for name, several in answers.items()}
    found = {
        "shape": shape,
        "precision": precision,
        "threads": threads,
        **checked,
        "tokens_per_second": {name: Summary.of([tokens / s for s in each]).plain() for name, each in seconds.items()},
        "faster": Summary.of_ratios(seconds[RIVAL], seconds[OURS]).plain(),
    }
    print({key: value for key, value in found.items() if key != "tokens_per_second"}, flush=True)
    return found


def _check(workers: dict[str, Worker], batch: list[list[int]], precision: str) -> dict[str, float]:
    one, other = (workers[name].ask({"check": batch}) for name in (OURS, RIVAL))
    different = {f"{what}_differs_by": abs(one[what] - other[what]) / other[what] for what in ("loss", "gradient")}
    if precision == "float32" and max(different.values()) > EQUAL:
        raise SystemExit(f"the two do not do the same work: {different}")
    return different


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        [
            f"{row['shape']}, {row['precision']}",
            *(Summary(**row["tokens_per_second"][name]).shown(0) for name in (OURS, RIVAL)),
            " / ".join(str(row["threads"][name]) for name in (OURS, RIVAL)),
            Summary(**row["faster"]).shown(),
            f"{row['loss_differs_by']:.0e}",
        ]
        for row in rows
    ]
    header = [
        "model, precision",
        f"{OURS}, tokens/s (quartiles)",
        RIVAL,
        "threads of each",
        "faster by",
        "loss differs by",
    ]
    return table(header, lines)


def _options() -> argparse.Namespace:
    parser = options_of.parser(__doc__, name="language-training-speed")
    options_of.add_threads(parser)
    parser.add_argument("--shapes", nargs="+", default=["gpt2", "llama-15m"], choices=[*PRESETS])
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=["float32", "bfloat16"],
        help="unset: float32, and bfloat16 where this machine is fast at it",
    )
    parser.add_argument("--rows", type=int, default=4, help="of a batch")
    parser.add_argument("--length", type=int, default=128, help="tokens of a row")
    parser.add_argument("--steps", type=int, default=2, help="in a round")
    parser.add_argument("--rounds", type=int, default=5)
    quick = {
        "shapes": ["mini-lm"],
        "precisions": ["float32"],
        "rows": 1,
        "length": 8,
        "steps": 1,
        "rounds": 1,
        "threads": [1],
    }
    chosen = options_of.read(parser, quick=quick)
    chosen.precisions = chosen.precisions or options_of.precisions()
    return chosen


if __name__ == "__main__":
    main()
