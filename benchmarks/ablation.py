"""What each choice of a recipe is worth: the recipe as shipped, and with one choice undone at a time.

Every row trains on one thread, for the same wall-clock time, so that a choice which costs speed pays for it, or with
`--steps` for the same number of optimizer steps, which a busy machine does not disturb. Rows run one after the other
(or `--jobs` at a time, on a core each); the validation at the end is reported.

    python benchmarks/ablation.py tatoeba-en-es-demo --minutes 4 --jobs 2
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
from typing import Any

import machine
import options as options_of
from corpus import EXAMPLE
from summary import table, write

ADAMW = 'training.optimizer={type="adamw",learning_rate=2e-3}'
AS_THE_PAPER = ['training.optimizer={type="adam"}', 'training.schedule={type="inverse-sqrt",warmup=200}']


@dataclass(frozen=True)
class Row:
    """One choice undone. overrides: as for `sublayer train --set`."""

    name: str
    overrides: tuple[str, ...]


def both(setting: str) -> tuple[str, str]:
    """A setting of the block, in encoder and decoder."""
    return f"model.encoder.block.{setting}", f"model.decoder.block.{setting}"


ROWS = [
    Row("as shipped", ()),
    Row("AdamW in place of Muon", (ADAMW,)),
    Row("the paper's Adam and schedule (warm-up 200)", tuple(AS_THE_PAPER)),
    Row("the same, and post-norm (the paper's)", (*AS_THE_PAPER, *both("norm_placement=post"))),
    Row("random padded batches in place of buckets", ("training.batches.buckets=false",)),
    Row("float32 products in place of bfloat16", ("training.precision=float32",)),
    Row("three embedding matrices in place of one", ("model.tied=none",)),
    Row("no averaging of weights", ('training.averaging={type="none"}',)),
    Row("no label smoothing", ("training.label_smoothing=0.0",)),
    Row("dropout 0.1", both("dropout=0.1")),
    Row("inverse square root in place of linear decay", ('training.schedule={type="inverse-sqrt",warmup=200}',)),
    Row(
        "rotary in place of sinusoidal positions",
        ("model.encoder.position.type=rotary", "model.decoder.position.type=rotary"),
    ),
    Row("SwiGLU in place of ReLU, same size", both('feed_forward={type="gated",hidden=683}')),
    Row("batches twice as large", ("training.batches.tokens=10000",)),
]


def run(row: Row, recipe: str, length: str, folder: Path) -> dict[str, Any]:
    """Train one row; its last validation."""
    out = folder / "".join(c if c.isalnum() else "-" for c in row.name)
    # This interpreter's own `sublayer`, whatever the path says.
    program = [sys.executable, "-c", "from sublayer.cli.main import main; main()"]
    command = [*program, "train", recipe, "--out", str(out), "--overwrite", "--device", "cpu"]
    settings = [f"training.{length}", "training.validate_every=100000", "training.checkpoint_every=100000"]
    for setting in (*settings, *row.overrides):
        command += ["--set", setting]
    finished = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    if finished.returncode:
        sys.exit(f"{row.name}: {finished.stderr[-2000:]}")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    last = next(line for line in reversed(lines) if "valid/bleu" in line)
    tokens = sum(line.get("tokens", 0) for line in lines)
    found = {
        "name": row.name,
        "overrides": row.overrides,
        "steps": last["step"],
        "tokens": tokens,
        "tokens_per_second": tokens / last["seconds"],
        "loss": last["valid/loss"],
        "bleu": last["valid/bleu"],
    }
    took = f"{last['step']} steps, {last['seconds']:.0f} s"
    said = f"{row.name} ({took}): loss {last['valid/loss']:.3f}, BLEU {last['valid/bleu']:.1f}"
    print(said, file=sys.stderr, flush=True)
    return found


def shown(found: list[dict[str, Any]]) -> str:
    """Markdown, a row a choice, differences to the first row."""
    first = found[0]
    rows = [
        [
            row["name"],
            f"{row['bleu']:.1f}",
            f"{row['bleu'] - first['bleu']:+.1f}",
            f"{row['loss']:.3f}",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['steps']}",
        ]
        for row in found
    ]
    return table(["choice", "BLEU", "difference", "loss", "tokens/s", "steps"], rows)


def main() -> None:
    options = _options()
    rows = ROWS if options.rows is None else [ROWS[number] for number in options.rows]
    length = f"minutes={options.minutes}" if options.steps is None else f"steps={options.steps}"
    with ThreadPoolExecutor(options.jobs) as pool:
        found = list(pool.map(lambda row: run(row, options.recipe, length, options.folder), rows))
    print(f"{machine.described(machine.facts())}\n\n{shown(found)}")
    print(f"\nWritten to {write(options, {'length': length, 'rows': found})}")


def _options() -> argparse.Namespace:
    parser = options_of.parser(__doc__, name="ablation")
    parser.add_argument("recipe", nargs="?", default="tatoeba-en-es-demo")
    parser.add_argument("--minutes", type=float, default=4.0, help="of training, each row")
    parser.add_argument("--steps", type=int, help="in place of minutes: optimizer steps, each row")
    parser.add_argument("--jobs", type=int, default=1, help="rows at a time, a thread each")
    parser.add_argument("--rows", type=int, nargs="*", help="only these, counted from 0")
    parser.add_argument("--folder", type=Path, default=Path("runs/ablation"), help="of the runs")
    folder = Path("runs/bench-quick/ablation")
    quick = {"recipe": str(EXAMPLE), "steps": 2, "rows": [0, 4], "folder": folder}
    return options_of.read(parser, quick=quick)


if __name__ == "__main__":
    main()
