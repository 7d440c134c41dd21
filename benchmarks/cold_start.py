"""A sentence translated from a cold start: seconds by the clock and peak memory of whole processes, one after another.

    python benchmarks/cold_start.py MODEL ["A sentence"] [--rounds 5] [--threads 1]

Interleaved, so that whatever else the machine does meets all of them; medians, and the least and the most.
`--source FOLDER` adds another checkout's `src`, to compare with.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMAND = "import sys; from sublayer.cli.main import main; sys.argv[0] = 'sublayer'; main()"
LIBRARY = "import sys, sublayer; print(sublayer.load(sys.argv[1]).translate([sys.argv[2]])[0].text)"
MODULES = """
import sys
from sublayer.hub.folder import load_translator
print(load_translator(sys.argv[1]).translate([sys.argv[2]])[0].text)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("sentence", nargs="?", default="Where are my keys?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--source", type=Path)
    options = parser.parse_args()
    own, told = str(Path(__file__).resolve().parents[1] / "src"), [str(options.model), options.sentence]
    contenders = {
        "sublayer translate": (own, ["-c", COMMAND, "translate", *told]),
        "sublayer.load(...).translate(...)": (own, ["-c", LIBRARY, *told]),
        "the same with the modules": (own, ["-c", MODULES, *told]),
    }
    if options.source is not None:
        contenders["sublayer translate, other checkout"] = (
            str(options.source),
            ["-c", COMMAND, "translate", *told],
        )
    answers = {name: measured(*each, options.threads)[2] for name, each in contenders.items()}  # and caches are warm
    assert len(set(answers.values())) == 1, answers
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name, each in contenders.items():
            found[name].append(measured(*each, options.threads)[:2])
    print(f"{answers.popitem()[1]!r}; {options.rounds} rounds, threads: {options.threads or 'default'}")
    for name, rounds in found.items():
        seconds, memory = zip(*rounds, strict=True)
        median, most = statistics.median(seconds), statistics.median(memory)
        print(f"{name:36}  {median:.2f} s ({min(seconds):.2f} to {max(seconds):.2f})  {most:.0f} MB")


def measured(source: str, arguments: list[str], threads: int | None) -> tuple[float, float, str]:
    """Seconds, peak resident memory in MB, and what was printed."""
    env = {**os.environ, "PYTHONPATH": source} | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, env=env)
    assert process.stdout is not None
    said = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, arguments
    return seconds, usage.ru_maxrss * 1024 / 1e6, said.strip()


if __name__ == "__main__":
    main()
