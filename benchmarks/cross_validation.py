"""How good a classifier's recipe is by cross-validation, the literature's measure where no test is the standard.

Every text is tested once: each fold in turn is the test, and a model learns from the others. Of those a share is held
out for validation, from which alone early stopping may choose (Kim 2014 takes a tenth), so that no fold's own test is
looked at before its model is finished. A recipe's test part is left alone unless `--parts` names it: settings may be
chosen by the folds, and scored on the test afterwards.

    python benchmarks/cross_validation.py rotten-tomatoes --parts train validation test
    python benchmarks/cross_validation.py trec --folds 5 --only 0 1 2 --set training.steps=1000
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import machine
import options as options_of
from corpus import EXAMPLE
from summary import table, write

from sublayer.config import GivenSplit, LabelledJsonl
from sublayer.config.load import load_recipe
from sublayer.data.tables.labelled import LABELLED_TEXTS

Text = dict[str, str]
QUICK = Path("runs/bench-quick/cross-validation")


def texts_of(options: argparse.Namespace) -> list[Text]:
    """All that is cut into folds: `--data`, or the recipe's parts, one after the other."""
    loaded = load_recipe(options.recipe)
    sources: list[Any] = []
    if options.data is not None:
        sources.append(LabelledJsonl(path=str(options.data.absolute())))
    elif isinstance(how := loaded.recipe.data.split, GivenSplit):
        parts = {"train": loaded.recipe.data.source, "validation": how.validation, "test": how.test}
        sources += [parts[name] for name in options.parts]
    else:
        sources.append(loaded.recipe.data.source)
    return [row.plain for source in sources for row in LABELLED_TEXTS.read(source, loaded.folder)]


def folds(texts: Sequence[Text], count: int, seed: int) -> list[list[Text]]:
    """`count` parts that differ in size by at most one text, drawn by `seed`."""
    drawn = [*texts]
    random.Random(seed).shuffle(drawn)
    return [drawn[start::count] for start in range(count)]


def run(parts: Sequence[Sequence[Text]], fold: int, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Learn without one fold; what share of it is then right."""
    folder = options.folder / f"fold-{fold}-seed-{seed}"
    others = [text for number, part in enumerate(parts) if number != fold for text in part]
    # The parts were shuffled: any of these texts are as good as others.
    every = round(1 / options.validation)
    split = {
        "train": [text for number, text in enumerate(others) if number % every],
        "validation": others[::every],
        "test": parts[fold],
    }
    sources: dict[str, str] = {}
    for name, rows in split.items():
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        sources[name] = f'{{type="labelled-jsonl",path={json.dumps(str(path.absolute()))}}}'
    given = f'{{type="given",validation={sources["validation"]},test={sources["test"]}}}'
    settings = [f"data.source={sources['train']}", f"data.split={given}", f"seed={seed}", *options.set]
    start = time.perf_counter()
    arguments = [part for setting in settings for part in ("--set", setting)]
    _sublayer("train", options.recipe, "--out", str(folder / "run"), "--overwrite", "--device", "cpu", *arguments)
    seconds = time.perf_counter() - start
    answers = folder / "answers.jsonl"
    _sublayer("evaluate", str(folder / "run"), "--device", "cpu", "--out", str(answers))
    # Not splitlines: a text may hold a character, such as U+0085, that it takes for the end of a line.
    rows = [json.loads(line) for line in answers.read_text(encoding="utf-8").split("\n") if line]
    right = sum(row["label"] == row["found"] for row in rows)
    said = f"seed {seed}, fold {fold}: {100 * right / len(rows):.1f} of {len(rows)}, after {seconds:.0f} s"
    print(said, file=sys.stderr, flush=True)
    return {"seed": seed, "fold": fold, "right": right, "of": len(rows), "seconds": seconds}


def shown(runs: Sequence[dict[str, Any]]) -> str:
    """Markdown, a row a seed: the mean over its folds, how far they lie apart, and each."""
    lines: list[list[str]] = []
    for seed in dict.fromkeys(run["seed"] for run in runs):
        own = [run for run in runs if run["seed"] == seed]
        found = [100 * run["right"] / run["of"] for run in own]
        apart = f"{stdev(found):.1f}" if len(found) > 1 else ""
        texts = f"{sum(run['of'] for run in own):,}"
        each = " ".join(f"{accuracy:.1f}" for accuracy in found)
        lines.append(
            [str(seed), f"{mean(found):.2f}", apart, each, texts, f"{mean(run['seconds'] for run in own):.0f}"]
        )
    return table(["seed", "accuracy", "deviation of a fold", "of each fold", "texts", "seconds a fold"], lines)


def main() -> None:
    options = _options()
    if options.quick and options.data is None:
        options.data = _languages()
    texts = texts_of(options)
    chosen = range(options.folds) if options.only is None else options.only
    runs: list[dict[str, Any]] = []
    for seed in options.seeds:
        # The same folds for every seed: what differs is the model.
        parts = folds(texts, options.folds, options.fold_seed)
        runs += [run(parts, fold, seed, options) for fold in chosen]
    print(machine.described(machine.facts()))
    print(f"\n{options.recipe}: {len(texts):,} texts in {options.folds} folds\n\n{shown(runs)}")
    print(f"\nWritten to {write(options, {'texts': len(texts), 'runs': runs})}")


def _sublayer(*arguments: str) -> None:
    # This interpreter's own `sublayer`, whatever the path says.
    command = [sys.executable, "-c", "from sublayer.cli.main import main; main()", *arguments]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if finished.returncode:
        sys.exit(f"sublayer {' '.join(arguments[:2])}: {finished.stderr[-2000:]}")


def _languages() -> Path:
    """Small labelled text that needs nothing to be fetched: which language a sentence is in."""
    path = QUICK / "languages.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"text": line, "label": language}
        for language in ("en", "es")
        for line in (EXAMPLE.parent / f"{language}.txt").read_text(encoding="utf-8").splitlines()[:40]
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _options() -> argparse.Namespace:
    parser = options_of.parser(__doc__, name="cross-validation")
    parser.add_argument("recipe", nargs="?", default="rotten-tomatoes")
    parser.add_argument("--data", type=Path, help="labelled JSON lines in place of the recipe's own text")
    names = ["train", "validation", "test"]
    parser.add_argument("--parts", nargs="+", choices=names, default=names[:2], help="of the recipe's own split")
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--only", type=int, nargs="+", metavar="FOLD", help="only these, counted from 0")
    parser.add_argument("--fold-seed", type=int, default=1, help="by which the folds are drawn")
    parser.add_argument(
        "--validation", type=float, default=0.1, help="share of what is learned from, for early stopping"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="as for `train`")
    parser.add_argument("--folder", type=Path, default=Path("runs/cross-validation"), help="of the runs")
    quick = {"folds": 2, "folder": QUICK, "set": ["training.steps=2", "model.embedding.width=8", "model.dim=6"]}
    return options_of.read(parser, quick=quick)


if __name__ == "__main__":
    main()
