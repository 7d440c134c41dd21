"""BLEU against training time: a sublayer recipe, and what a user would write today with `torch.nn.Transformer`.

    python benchmarks/time_to_quality.py tatoeba-en-es-demo
    python benchmarks/time_to_quality.py tatoeba-en-es-demo --only baseline --peaks 5e-4 1e-3 2e-3

Both get the same text, split, tokenizer, model size, machine and seconds of training, one after the other. Seconds are
of optimizer steps: evaluation stops the clock, and reading text and training the tokenizer are not counted for
either. The curve is greedy BLEU on the validation sentences; at each mark stands the last validation before it. The
test set is scored at the end, with the same settings of sacreBLEU.

The baseline's peak learning rate and warm-up are the best of those in `--peaks` and `--warmups`, by its own validation
BLEU, each with a run of its own: it must not lose by a bad setting.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import corpus
import machine
import torch
from baseline import Baseline, Point
from corpus import Corpus
from quality_report import draw, tables
from summary import RESULTS, write

import sublayer
from sublayer.config.load import LoadedRecipe, load_recipe
from sublayer.data.split import grouped
from sublayer.training.evaluation import score
from sublayer.training.metrics import read_metrics


def main() -> None:
    options = _options()
    loaded = load_recipe(options.recipe, options.overrides)
    name = options.name or f"time-to-quality-{loaded.recipe.name}"
    out = options.out or Path("runs") / name
    result = _before(name)
    data = corpus.load(loaded.recipe.data, loaded.recipe.tokenizer, loaded.folder)
    if options.only in (None, "sublayer"):
        result["sublayer"] = _sublayer(options, out, data) | {"machine": machine.facts(options.device)}
        write(name, result)
    if options.only in (None, "baseline"):
        seconds = _seconds(options, loaded, result)
        result["baseline"] = _baseline(options, loaded, data, seconds) | {"machine": machine.facts(options.device)}
        write(name, result)
    if not result:
        raise SystemExit(f"nothing has been measured under the name {name}")
    print(f"\n{machine.described(machine.facts(options.device))}\n\n{tables(result, options.every)}")
    print(f"\nWritten to {write(name, result)} and {draw(result, RESULTS / f'{name}.png', loaded.recipe.name)}")


def _sublayer(options: argparse.Namespace, out: Path, data: Corpus) -> dict[str, Any]:
    """Train through the command line, as a user does; then score what it left."""
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
        "parameters": sum(p.numel() for p in translator.model.parameters()),
        "test": test,
    }


def _baseline(options: argparse.Namespace, loaded: LoadedRecipe, data: Corpus, seconds: float) -> dict[str, Any]:
    """The best of the baselines, each trained for `seconds`; the others' last validations are kept beside it."""
    marks = [options.every * number for number in range(1, int(seconds / options.every) + 1)]
    best: dict[str, Any] = {}
    tried: list[dict[str, float]] = []
    for share in options.warmups:
        for peak in options.peaks:
            print(f"baseline: {seconds:.0f} s, peak {peak:g}, warm-up {100 * share:.0f}% of its steps", flush=True)
            baseline = Baseline(
                data,
                loaded.recipe.model,
                seconds=seconds,
                peak=peak,
                share=share,
                device=options.device,
                precision=getattr(torch, options.baseline_precision),
            )
            curve = baseline.train(marks, _tell)
            tried.append({"peak": peak, "warmup": baseline.warmup, "valid_bleu": curve[-1].bleu})
            if not best or curve[-1].bleu > best["curve"][-1]["bleu"]:
                best = {
                    "curve": [asdict(point) for point in curve],
                    "seconds": baseline.clock,
                    "steps": baseline.step,
                    "parameters": sum(p.numel() for p in baseline.model.parameters()),
                    "peak": peak,
                    "warmup": baseline.warmup,
                    "precision": options.baseline_precision,
                    "test": {"greedy": asdict(baseline.evaluate(data.splits.test))},
                }
    return best | {"tried": tried}


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


def _before(name: str) -> dict[str, Any]:
    """What an earlier run left: one side may be measured today, the other tomorrow."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="tatoeba-en-es-demo", help="a shipped recipe or a TOML file")
    parser.add_argument("--only", choices=["sublayer", "baseline", "table"], help="one side, or just the table again")
    parser.add_argument("--minutes", type=float, help="of training; unset: the recipe's")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between validations of the baseline")
    parser.add_argument("--validate-every", type=int, default=50, help="steps between validations of sublayer")
    parser.add_argument("--peaks", type=float, nargs="+", default=[1e-3], help="the baseline's peak learning rates")
    parser.add_argument("--warmups", type=float, nargs="+", default=[0.15], help="its warm-ups, as parts of its steps")
    parser.add_argument("--baseline-precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="folder of sublayer's run")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--name", help="of the files in benchmarks/results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
