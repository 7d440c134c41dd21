"""Training speed in real (non-pad) target tokens per second: sublayer, `torch.nn.Transformer`, `transformers`' Marian.

    python benchmarks/training_speed.py                         # small, on the CPU, float32 and bfloat16
    python benchmarks/training_speed.py --shape base --device cuda

All train the same architecture at the same sizes, on English-Spanish sentences of real lengths; a step is forward,
loss with label smoothing, backward, clipping, optimizer. Each runs in a process of its own, and rounds are
interleaved. Two settings:

own         each as its users train it: the rivals on a fixed number of random rows, padded; sublayer on its bucketed
            batches. "own, matched" gives the rivals as many rows as sublayer's batches have on average (so as many real
            tokens a step), "own, 128" the 128 rows of PyTorch's tutorial.
identical   the same bucketed batches for all, made before the clock starts.

Dropout is the same for all, in the same places (0 unless `--dropout` says otherwise), so no one does less work.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import corpus
import machine
import options as options_of
from summary import Summary, table, write
from workers import Message, Worker, fit_threads, interleave

from sublayer import config
from sublayer.data.batching import padding_waste, plan

HERE = Path(__file__).parent
OURS = "sublayer"
RIVALS = ("torch.nn.Transformer", "transformers")
SETTINGS = ("own, matched", "own, 128", "identical")


def main() -> None:
    options = _options()
    data = corpus.example() if options.quick else corpus.load()
    encoded = data.encoded
    lengths = encoded.source_lengths, encoded.target_lengths
    batches = plan(*lengths, config.Batching(tokens=options.tokens), options.seed, 0)
    common: Message = {
        "data": str(corpus.encoded_file(data)),
        "vocab_size": data.tokenizer.vocab_size,
        "shape": options.shape,
        "device": options.device,
        "dropout": options.dropout,
        "tokens": options.tokens,
        "seed": options.seed,
        "rows": options.rows or round(len(encoded) / len(batches)),
    }
    print(f"{machine.described(machine.facts(options.device))}\n")
    print(
        f"shape {options.shape}, {len(encoded):,} pairs, sublayer's batches: {len(encoded) / len(batches):.0f} rows, "
        f"{encoded.target_lengths.sum() / len(batches):.0f} target tokens, "
        f"{100 * padding_waste(batches, *lengths):.1f}% padding; dropout {options.dropout}\n"
    )
    checked = _check(common) if options.check else {}
    rows = [
        result
        for precision in options.precisions
        for setting in options.settings
        for result in _measure(common, options, precision, setting)
    ]
    print(_table(rows))
    print(f"\nWritten to {write(options, {'equal': checked, 'rows': rows}, options.device)}")


def _check(common: Message) -> dict[str, dict[str, float]]:
    """Stops the benchmark unless all compute the same on equal weights."""
    with Worker(HERE / "equal_work.py", common) as worker:
        different: dict[str, dict[str, float]] = worker.started
    for name, values in different.items():
        shown = ", ".join(f"{what} {value:.1e}" for what, value in values.items())
        print(f"equal weights, one batch: {name} differs from sublayer by (relative) {shown}")
        if max(values.values()) > 1e-4:
            raise SystemExit(f"{name} does not do the same work; its speed says nothing")
    print()
    return different


def _measure(common: Message, options: argparse.Namespace, precision: str, setting: str) -> list[dict[str, Any]]:
    """One row a contender."""
    own = setting.startswith("own")
    settings = common | {
        "precision": precision,
        "batches": "own" if own else "identical",
        "rows": 128 if setting == "own, 128" else common["rows"],
        # As users write it, nothing is tied in torch's; on identical batches all do identical work.
        "tied": not own,
        "held": options.held,
    }
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(Worker(HERE / "training_worker.py", settings | {"contender": name}))
            for name in (OURS, *RIVALS)
        }
        trial = {"seconds": options.trial}
        threads = fit_threads(workers, trial, options.threads, lambda a: a["target_tokens"] / a["seconds"])
        warm = {name: worker.ask({"seconds": options.warmup}) for name, worker in workers.items()}
        slowest = max(answer["seconds"] / answer["steps"] for answer in warm.values())
        # On identical batches a round is the same ones for all: as many as the slowest makes in the time.
        steps = max(1, round(options.seconds / slowest))

        def ask(number: int) -> Message:
            return {"seconds": options.seconds} if own else {"steps": steps, "first": number * steps}

        answers = interleave(workers, ask, options.rounds)
    speeds = {name: [a["target_tokens"] / a["seconds"] for a in given] for name, given in answers.items()}
    print(
        f"{precision}, {setting}: "
        + ", ".join(f"{name} {Summary.of(speed).median:,.0f}" for name, speed in speeds.items()),
        flush=True,
    )
    return [
        {
            "precision": precision,
            "setting": setting,
            "contender": name,
            "threads": threads[name],
            "rows": settings["rows"] if own and name != OURS else None,
            "parameters": workers[name].started["parameters"],
            "tokens_per_second": Summary.of(speeds[name]).plain(),
            "tokens_a_step": sum(a["target_tokens"] for a in answers[name]) / sum(a["steps"] for a in answers[name]),
            "sublayer_is_faster": Summary.of_ratios(speeds[OURS], speeds[name]).plain(),
            "rounds": speeds[name],
        }
        for name in workers
    ]


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        [
            f"{row['precision']}, {row['setting']}: {row['contender']}",
            Summary(**row["tokens_per_second"]).shown(0),
            f"{row['tokens_a_step']:,.0f}",
            str(row["threads"]),
            "" if row["contender"] == OURS else Summary(**row["sublayer_is_faster"]).shown(),
        ]
        for row in rows
    ]
    header = [
        "precision, batches: contender",
        "target tokens/s (quartiles)",
        "tokens a step",
        "threads",
        "sublayer is faster by",
    ]
    return "\n" + table(header, lines)


def _options() -> argparse.Namespace:
    parser = options_of.parser(__doc__, name="training-speed-SHAPE")
    options_of.add_threads(parser)
    parser.add_argument("--shape", default="small", help="a preset's sizes (small, base, ...)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=["float32", "bfloat16"],
        help="unset: float32, and bfloat16 where this machine is fast at it",
    )
    parser.add_argument("--settings", nargs="+", default=[*SETTINGS], choices=[*SETTINGS])
    parser.add_argument("--tokens", type=int, default=6000, help="budget of sublayer's batches")
    parser.add_argument("--rows", type=int, help="rows of the rivals' batches in 'own, matched', if not matched")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a round")
    parser.add_argument("--warmup", type=float, default=4.0, help="seconds before the first round")
    parser.add_argument("--trial", type=float, default=2.0, help="seconds of a trial with a number of threads")
    parser.add_argument("--held", type=int, default=64, help="identical batches, gone through in turn")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-check", dest="check", action="store_false", help="skip the check of equal outputs")
    quick = {
        "shape": "tiny",
        "precisions": ["float32"],
        "settings": ["own, matched", "identical"],
        "tokens": 300,
        "rounds": 1,
        "seconds": 0.1,
        "warmup": 0.1,
        "threads": [1],
        "held": 2,
    }
    chosen = options_of.read(parser, quick=quick)
    chosen.precisions = chosen.precisions or options_of.precisions(chosen.device)
    chosen.name = chosen.name.replace("SHAPE", chosen.shape)
    return chosen


if __name__ == "__main__":
    main()
