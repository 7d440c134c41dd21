"""BLEU against training time: a sublayer recipe, and `torch.nn.Transformer` as a careful user would train it.

    python benchmarks/time_to_quality.py                        # the demo's recipe, for its own minutes
    python benchmarks/time_to_quality.py --minutes 6            # 6 minutes for each run that counts: 35 in all
    python benchmarks/time_to_quality.py --minutes 6 --only baseline

Both get the same text, split, tokenizer, sizes of the model, machine and seconds of training, one after the other, each
with all threads: a user has the whole machine, too, and nobody disturbs anybody's memory. Seconds are of optimizer
steps: evaluation stops the clock, and reading text and training the tokenizer are not counted for either. The curve is
greedy BLEU on the validation sentences; at each mark stands the last validation before it. The test set is scored at
the end, with the same settings of sacreBLEU.

The baseline (`baseline.py`) gets bucketed batches, fused AdamW or the paper's Adam, label smoothing and dropout as the
recipe has them, and bfloat16 where the machine is fast at it. Which optimizer, peak, batch, norm placement and tying it
trains with is searched for: every one of its settings gets a whole short run (`--trial` of the minutes), and the best
`--finalists` of them by validation loss (BLEU is near 0 for all so early) get the whole time. The best by validation
BLEU stands in the table. sublayer's recipe gets one run.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import corpus
import machine
import options as options_of
import torch
from baseline import SETTINGS, Baseline, Point, Setting
from corpus import EXAMPLE, Corpus
from halving import Rung, halve
from quality_report import SIDES, draw, tables
from summary import write

import sublayer
from sublayer.config.load import LoadedRecipe, load_recipe
from sublayer.data.sources import grouped
from sublayer.tasks.scores import score
from sublayer.training.metrics import read_metrics
from sublayer.training.runtime import resolve_precision


@dataclass(frozen=True)
class Trained:
    """What a trial of the baseline came to. run: with its model, of those that had the whole time."""

    points: list[Point]
    seconds: float
    steps: int
    run: Baseline | None


def main() -> None:
    options = _options()
    loaded = load_recipe(options.recipe, options.overrides)
    options.name = options.name.replace("RECIPE", loaded.recipe.name)
    result = _before(options)
    data = corpus.load(loaded.recipe.data, loaded.recipe.tokenizer, loaded.folder)
    if options.only in (None, "sublayer"):
        result["sublayer"] = _sublayer(options, data) | {"machine": machine.facts(options.device)}
        write(options, result, options.device)
    if options.only in (None, "baseline"):
        seconds = _seconds(options, loaded, result)
        result["baseline"] = _baseline(options, loaded, data, seconds) | {"machine": machine.facts(options.device)}
    if not result:
        raise SystemExit(f"nothing has been measured under the name {options.name}: leave out --only table")
    path = write(options, result, options.device)
    print(f"\n{machine.described(machine.facts(options.device))}\n\n{tables(result, options.every)}")
    print(f"\nWritten to {path} and {draw(result, path.with_suffix('.png'), loaded.recipe.name)}")


def _sublayer(options: argparse.Namespace, data: Corpus) -> dict[str, Any]:
    """Train through the command line, as a user does; then score what it left."""
    out = options.run or Path("runs") / options.name
    overrides = [*options.overrides, f"training.validate_every={options.validate_every}"]
    if options.minutes:
        overrides += [f"training.minutes={options.minutes}", "training.steps=none"]
    settings = [part for override in overrides for part in ("--set", override)]
    # This interpreter's own `sublayer`, whatever the path says.
    command = [sys.executable, "-c", "from sublayer.cli.main import main; main()"]
    arguments = ["train", options.recipe, "--out", str(out), "--overwrite", "--device", options.device, *settings]
    subprocess.run([*command, *arguments], check=True)
    lines = read_metrics(out / "metrics.jsonl")
    translator = sublayer.load(out, options.device)
    if translator.tokenizer.fingerprint != data.tokenizer.fingerprint:
        raise SystemExit("the run's tokenizer is not the baseline's: empty the benchmarks' cache folder")
    sources, references = grouped(data.splits.test)
    test: dict[str, Any] = {}
    for beam in dict.fromkeys((1, translator.decoding.beam)):
        texts = [translation.text for translation in translator.translate(sources, beam=beam)]
        test["greedy" if beam == 1 else f"beam {beam}"] = asdict(score(texts, references))
    return {
        "curve": [
            {"seconds": line["seconds"], "step": line["step"], "bleu": line["valid/bleu"]}
            for line in lines
            if "valid/bleu" in line
        ],
        "seconds": lines[-1]["seconds"],
        "steps": lines[-1]["step"],
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in translator.model.parameters()),
        "test": test,
    }


def _baseline(options: argparse.Namespace, loaded: LoadedRecipe, data: Corpus, seconds: float) -> dict[str, Any]:
    """The best of the settings, trained for `seconds`, and beside it what the others reached."""
    training, block = loaded.recipe.training, loaded.recipe.model.encoder.block
    precision = resolve_precision(options.baseline_precision, torch.device(options.device))

    def trial(setting: Setting, share: float) -> Trained:
        print(f"baseline, {share * seconds:.0f} s: {setting}", flush=True)
        run = Baseline(
            data,
            loaded.recipe.model,
            setting,
            seconds=share * seconds,
            dropout=block.dropout,
            label_smoothing=training.label_smoothing,
            device=options.device,
            precision=precision,
        )
        whole = range(1, math.ceil(seconds / options.every)) if share == 1 else ()
        points = run.train([options.every * number for number in whole], _tell)
        return Trained(points, run.clock, run.step, run if share == 1 else None)

    rungs = (Rung(options.trial, options.finalists), Rung(1.0, 1))
    measures = (lambda trained: -trained.points[-1].loss, lambda trained: trained.points[-1].bleu)
    short, full = halve([SETTINGS[number] for number in options.settings], rungs, trial, measures)
    setting, best = full[0]
    assert best.run is not None
    return {
        "curve": [asdict(point) for point in best.points],
        "seconds": best.seconds,
        "steps": best.steps,
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in best.run.model.parameters()),
        "setting": asdict(setting),
        "precision": str(precision).removeprefix("torch."),
        "test": {"greedy": asdict(best.run.evaluate(data.splits.test))},
        "tried": [
            {
                "setting": str(one),
                "seconds": trained.seconds,
                "steps": trained.steps,
                "loss": trained.points[-1].loss,
                "bleu": trained.points[-1].bleu,
            }
            for rung in (short, full)
            for one, trained in rung
        ],
    }


def _tell(point: Point) -> None:
    print(f"  {point.seconds:6.0f} s, step {point.step}: loss {point.loss:.3f}, BLEU {point.bleu:.2f}", flush=True)


def _seconds(options: argparse.Namespace, loaded: LoadedRecipe, result: dict[str, Any]) -> float:
    """As long as sublayer trained, or as long as it would."""
    minutes = options.minutes or loaded.recipe.training.minutes
    if "sublayer" in result:
        return result["sublayer"]["seconds"]
    if minutes is None:
        raise SystemExit("how long? Give --minutes, or train sublayer's side first")
    return 60 * minutes


def _before(options: argparse.Namespace) -> dict[str, Any]:
    """What an earlier run left, where only one side is measured now; the other may have been yesterday."""
    path = options.out / f"{options.name}-{machine.kind(options.device)}.json"
    if options.only is None or not path.is_file():
        return {}
    result = json.loads(path.read_text(encoding="utf-8"))
    return {side: result[side] for side in SIDES if side in result}


def _options() -> argparse.Namespace:
    parser = options_of.parser(__doc__, name="time-to-quality-RECIPE")
    parser.add_argument("recipe", nargs="?", default="tatoeba-en-es-demo", help="a shipped recipe or a TOML file")
    parser.add_argument("--only", choices=["sublayer", "baseline", "table"], help="one side, or just the table again")
    parser.add_argument("--minutes", type=float, help="of training; unset: the recipe's")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between validations of the baseline")
    parser.add_argument("--validate-every", type=int, default=25, help="steps between validations of sublayer")
    parser.add_argument(
        "--trial", type=float, default=1 / 8, help="length of a baseline's trial, as a part of the time"
    )
    parser.add_argument("--finalists", type=int, default=2, help="settings of the baseline that get the whole time")
    parser.add_argument(
        "--settings",
        type=int,
        nargs="+",
        default=[*range(len(SETTINGS))],
        choices=range(len(SETTINGS)),
        help="of the baseline, by number (baseline.py)",
    )
    parser.add_argument("--baseline-precision", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--run", type=Path, help="folder of sublayer's run")
    parser.add_argument("--device", default="cpu")
    quick = {
        "recipe": str(EXAMPLE),
        "minutes": 0.02,
        "settings": [0, 9],
        "trial": 0.25,
        "finalists": 1,
        "run": Path("runs/bench-quick/time-to-quality"),
    }
    return options_of.read(parser, quick=quick)


if __name__ == "__main__":
    main()
