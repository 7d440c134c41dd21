"""What each choice of a recipe is worth: the recipe as shipped, and with one choice undone at a time.

Every row trains on one thread, for the same wall-clock time, so that a choice which costs speed pays for it, or with
`--steps` on as much text, whatever else the machine does: a row of larger batches then takes fewer steps. So does one
of a wider model, as many as fit into the same time. Rows run one after the other (or `--jobs` at a time, on a core
each), each with every seed; the validation at the end is reported.

    python benchmarks/ablation.py tatoeba-en-es-demo --minutes 4 --jobs 2
    python benchmarks/ablation.py tatoeba-en-es-demo --steps 250 --seeds 1 2 3 --set training.precision=float32
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import machine
import options as options_of
from corpus import EXAMPLE
from summary import table, write

ADAMW = 'training.optimizer={type="adamw",learning_rate=2e-3}'
WHOLE = "training.optimizer.hidden_block=none", "training.optimizer.products=auto"
AVERAGED = 'training.averaging={type="ema",decay=0.99}'
AS_THE_PAPER = ['training.optimizer={type="adam"}', 'training.schedule={type="inverse-sqrt",warmup=200}']


@dataclass(frozen=True)
class Row:
    """One choice undone.

    overrides: as for `sublayer train --set`. steps: times the recipe's, for as much text or time.
    """

    name: str
    overrides: tuple[str, ...]
    steps: float = 1.0


def both(setting: str) -> tuple[str, str]:
    """A setting of the block, in encoder and decoder."""
    return f"model.encoder.block.{setting}", f"model.decoder.block.{setting}"


def rates(muon: str, others: str) -> tuple[str, str]:
    """The two learning rates."""
    return f"training.optimizer.learning_rate={muon}", f"training.optimizer.others.learning_rate={others}"


BIASES = (
    *both("attention.bias=true"),
    *both("feed_forward.bias=true"),
    "model.decoder.block.cross_attention.bias=true",
)
NO_NORMS = both("attention.query_key_norm=none")
WIDER = ("model.preset=small",)
ROWS = [
    Row("as shipped", ()),
    Row("AdamW in place of Muon", (ADAMW,)),
    Row("the paper's Adam and schedule (warm-up 200)", tuple(AS_THE_PAPER)),
    Row("the same, and post-norm (the paper's)", (*AS_THE_PAPER, *both("norm_placement=post"))),
    Row("random padded batches in place of buckets", ("training.batches.buckets=false",)),
    Row("float32 products in place of bfloat16", ("training.precision=float32",)),
    Row("one embedding matrix in place of three", ("model.tied=all",)),
    Row("an average of the weights", (AVERAGED,)),
    Row("no label smoothing", ("training.label_smoothing=0.0",)),
    Row("dropout 0.1", both("dropout=0.1")),
    Row("inverse square root in place of linear decay", ('training.schedule={type="inverse-sqrt",warmup=200}',)),
    Row(
        "rotary in place of sinusoidal positions",
        ("model.encoder.position.type=rotary", "model.decoder.position.type=rotary"),
    ),
    Row("SwiGLU in place of ReLU, same size", both('feed_forward={type="gated",hidden=512}')),
    Row("batches twice as large", ("training.batches.tokens=6000",), steps=0.5),
    Row("half the vocabulary", ("tokenizer.vocab_size=4000",)),
    Row("half the learning rates", rates("1.5e-3", "3e-3")),
    Row("twice the learning rates", rates("6e-3", "12e-3")),
    Row("Muon over whole feed-forward matrices", WHOLE),
    Row("the same, with Jordan's polynomials", (*WHOLE, "training.optimizer.polynomials=jordan")),
    Row("one learning rate of 4e-3", rates("4e-3", "4e-3")),
    Row("biases", BIASES),
    Row("no norms on queries and keys", NO_NORMS),
    Row("a model 256 wide in place of 192", WIDER, steps=2 / 3),
    Row(
        "the last four, and an average (the recipe of November)",
        (*rates("4e-3", "4e-3"), *BIASES, *NO_NORMS, *WIDER, AVERAGED),
        steps=2 / 3,
    ),
]


def run(row: Row, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train one row with one seed; its last validation."""
    out = options.folder / f"{''.join(c if c.isalnum() else '-' for c in row.name)}-{seed}"
    # This interpreter's own `sublayer`, whatever the path says.
    program = [sys.executable, "-c", "from sublayer.cli.main import main; main()"]
    command = [*program, "train", options.recipe, "--out", str(out), "--overwrite", "--device", "cpu"]
    length = f"minutes={options.minutes}" if options.steps is None else f"steps={round(options.steps * row.steps)}"
    settings = [f"training.{length}", "training.validate_every=100000", "training.checkpoint_every=100000"]
    for setting in (*settings, f"seed={seed}", *options.set, *row.overrides):
        command += ["--set", setting]
    finished = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    if finished.returncode:
        sys.exit(f"{row.name}: {finished.stderr[-2000:]}")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    last = next(line for line in reversed(lines) if "valid/bleu" in line)
    tokens = sum(line.get("tokens", 0) for line in lines)
    took = f"{last['step']} steps, {last['seconds']:.0f} s"
    said = f"{row.name}, seed {seed} ({took}): loss {last['valid/loss']:.3f}, BLEU {last['valid/bleu']:.1f}"
    print(said, file=sys.stderr, flush=True)
    return {
        "name": row.name,
        "overrides": row.overrides,
        "seed": seed,
        "steps": last["step"],
        "tokens": tokens,
        "tokens_per_second": tokens / last["seconds"],
        "loss": last["valid/loss"],
        "bleu": last["valid/bleu"],
    }


def shown(rows: list[list[dict[str, Any]]]) -> str:
    """Markdown, a row a choice: means over the seeds, and differences to the first row."""
    first = mean(run["bleu"] for run in rows[0])
    lines = [
        [
            runs[0]["name"],
            f"{mean(run['bleu'] for run in runs):.1f}",
            ", ".join(f"{run['bleu']:.1f}" for run in runs),
            f"{mean(run['bleu'] for run in runs) - first:+.1f}",
            f"{mean(run['loss'] for run in runs):.3f}",
            f"{mean(run['tokens_per_second'] for run in runs):,.0f}",
            f"{mean(run['steps'] for run in runs):.0f}",
        ]
        for runs in rows
    ]
    return table(["choice", "BLEU", "of each seed", "difference", "loss", "tokens/s", "steps"], lines)


def main() -> None:
    options = _options()
    rows = ROWS if options.rows is None else [ROWS[number] for number in options.rows]
    runs = [(row, seed) for row in rows for seed in options.seeds]
    with ThreadPoolExecutor(options.jobs) as pool:
        found = list(pool.map(lambda one: run(*one, options), runs))
    each = len(options.seeds)
    print(machine.described(machine.facts()))
    print(f"\n{shown([found[start : start + each] for start in range(0, len(found), each)])}")
    length = f"minutes={options.minutes}" if options.steps is None else f"steps={options.steps}"
    print(f"\nWritten to {write(options, {'length': length, 'set': options.set, 'rows': found})}")


def _options() -> argparse.Namespace:
    parser = options_of.parser(__doc__, name="ablation")
    parser.add_argument("recipe", nargs="?", default="tatoeba-en-es-demo")
    parser.add_argument("--minutes", type=float, default=4.0, help="of training, each row")
    parser.add_argument("--steps", type=int, help="in place of minutes: optimizer steps of the recipe's batches")
    parser.add_argument("--jobs", type=int, default=1, help="rows at a time, a thread each")
    parser.add_argument("--rows", type=int, nargs="*", help="only these, counted from 0")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="in every row, as for `train`")
    parser.add_argument("--folder", type=Path, default=Path("runs/ablation"), help="of the runs")
    folder = Path("runs/bench-quick/ablation")
    quick = {"recipe": str(EXAMPLE), "steps": 2, "rows": [0, 4], "folder": folder}
    return options_of.read(parser, quick=quick)


if __name__ == "__main__":
    main()
