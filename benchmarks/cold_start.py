"""A sentence from a cold start, translated or gone on from: seconds by the clock and peak memory of whole processes.

    python benchmarks/cold_start.py --model runs/tatoeba-en-es-demo [--sentence "Where are my keys?"] [--rounds 5]
    python benchmarks/cold_start.py --model models/smollm2 --sentence "Once upon a time"

Interleaved, so that whatever else the machine does meets all of them; medians, and the least and the most.
`--source FOLDER` adds another checkout's `src`, to compare with. Without a model, one of the own-text example is
trained for a few steps.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import machine
import options as options_of
from corpus import EXAMPLE, cache_folder
from summary import table, write

from sublayer.hub.location import find, read_description

COMMAND = "import sys; from sublayer.cli.main import main; sys.argv[0] = 'sublayer'; main()"
LIBRARY = "import sys, sublayer; print(sublayer.load(sys.argv[1]).{}[0].text)"
MODULES = "import sys; from sublayer.hub import folder; print(folder.load(sys.argv[1]).{}[0].text)"
TRANSLATE = "translate", (), "translate([sys.argv[2]])"
GENERATE = (
    "generate",
    ("--temperature", "0", "--max-tokens", "16"),
    "generate([sys.argv[2]], search=__import__('sublayer.config').config.Greedy(), max_tokens=16)",
)
"""The command, its options, and the same as a method."""
OWN = str(Path(__file__).resolve().parents[1] / "src")


def main() -> None:
    options = _options()
    model = options.model or _example()
    told = [str(model), options.sentence]
    writes = read_description(find(model))["model"]["kind"] == "decoder-only"
    command, more, method = GENERATE if writes else TRANSLATE
    whole = ["-c", COMMAND, command, *told, *more]
    contenders = {
        f"`sublayer {command}`": (OWN, whole),
        f"`sublayer.load(...).{command}(...)`": (OWN, ["-c", LIBRARY.format(method), *told]),
        "the same with the modules": (OWN, ["-c", MODULES.format(method), *told]),
    }
    if options.source is not None:
        contenders[f"`sublayer {command}`, other checkout"] = (str(options.source), whole)
    answers = {name: measured(*each)[2] for name, each in contenders.items()}  # and what is made at first use is there
    if len(set(answers.values())) > 1:
        sys.exit(f"the texts differ: {answers}")
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name, each in contenders.items():
            found[name].append(measured(*each)[:2])
    rows = [_row(name, rounds) for name, rounds in found.items()]
    lines = [
        [row["name"], f"{row['seconds']:.2f} ({row['least']:.2f}-{row['most']:.2f})", f"{row['megabytes']:.0f}"]
        for row in rows
    ]
    print(f"{machine.described(machine.facts())}\n\n{table(['way', 'seconds', 'peak memory, MB'], lines)}")
    print(f"\nWritten to {write(options, {'rounds': options.rounds, 'rows': rows})}")


def measured(source: str, arguments: list[str]) -> tuple[float, float, str]:
    """Seconds, peak resident memory in MB, and what was printed."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": source}
    )
    assert process.stdout is not None
    said = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{arguments} ended with code {process.returncode}")
    return seconds, usage.ru_maxrss * 1024 / 1e6, said.strip()


def _row(name: str, rounds: list[tuple[float, float]]) -> dict[str, Any]:
    seconds, memory = zip(*rounds, strict=True)
    return {
        "name": name,
        "seconds": statistics.median(seconds),
        "least": min(seconds),
        "most": max(seconds),
        "megabytes": statistics.median(memory),
    }


def _example() -> Path:
    """A translator of the own-text example, trained for a few steps."""
    run = cache_folder() / "cold-start"
    if not (run / "model" / "model.safetensors").is_file():
        train = [
            "train",
            str(EXAMPLE),
            "--out",
            str(run),
            "--overwrite",
            "--device",
            "cpu",
            "--set",
            "training.steps=2",
        ]
        measured(OWN, ["-c", COMMAND, *train])
    return run


def _options() -> argparse.Namespace:
    parser = options_of.parser(__doc__, name="cold-start")
    parser.add_argument("--model", type=Path, help="folder of a model that decodes, or of its run")
    parser.add_argument("--sentence", default="Where are my keys?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--source", type=Path, help="the `src` of another checkout")
    return options_of.read(parser, quick={"rounds": 1})


if __name__ == "__main__":
    main()
