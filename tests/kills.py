"""Kill runs, many times, at random moments, and compare what they come to with runs that nothing disturbed.

    python tests/kills.py --kills 300 --seconds 3600
    python tests/kills.py --kills 300 --seconds 200 --record kills.json    # again and again, until 300 are counted

The number of threads changes from process to process; a run goes on with the one that it began with. Beside one process
in three a second one is started in the same folder. A process that does not end says where it stands and counts as
wrong. Prints what was done, and ends with 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "training")]

from test_resume import KINDS, differences, reached  # noqa: E402

from small_run import Outcome, Processes, new_processes, write  # noqa: E402

REFUSED = ("another process is training in", "already holds a run")
PATIENCE = 150.0
"""Seconds by the clock after which a process hangs: alone it takes two, and no machine is so busy."""


@dataclass
class Killing:
    """Counts what happens. wrong: what must not have happened."""

    seed: int
    folder: Path
    seconds: float
    kills: int = 0
    runs: int = 0
    counts: Counter[str] = field(default_factory=Counter[str])
    wrong: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self.first, self.second = new_processes(), new_processes()
        self.until = time.monotonic() + self.seconds
        self.files = {
            kind: write(self.folder / str(number), training={"steps": 20, "checkpoint_every": 2, **settings})
            for number, (kind, settings) in enumerate(KINDS.items())
        }
        self.whole: dict[tuple[str, int], Path] = {}

    def go_on_until(self, kills: int) -> None:
        while self.kills < kills and time.monotonic() < self.until and not self.wrong:
            self.runs += 1
            self.one(self.draw.choice(list(KINDS)), self.folder / f"run-{self.runs}", kills)

    def one(self, kind: str, out: Path, kills: int) -> None:
        """One run, killed on its way to its end."""
        for _ in range(8):
            if self.kills >= kills or time.monotonic() > self.until:
                break
            threads = self.draw.choice([1, 2])
            self.counts[f"threads={threads}"] += 1
            beside = self.draw.random() < 1 / 3
            jobs = [(self.first, threads, self.fault(out)), (self.second, 3 - threads, self.fault(out))]
            self.count(self.at_once(kind, out, jobs if beside else jobs[:1]))
        # To its end, with nobody disturbing it.
        last = self.go(self.first, kind, out, self.draw.choice([1, 2]), {})
        if last.code != 0:
            self.wrong.append(f"{out.name}: {last.code} {last.err[-500:]}")
            return
        began = json.loads((out / "conditions.json").read_text())["threads"]
        self.wrong += [f"{out.name}: {each}" for each in differences(self.undisturbed(kind, began), out)]

    def at_once(self, kind: str, out: Path, jobs: list[tuple[Processes, int, dict[str, Any]]]) -> list[Outcome]:
        found: list[Outcome] = []
        running = [
            threading.Thread(target=lambda job=job: found.append(self.go(job[0], kind, out, job[1], job[2])))
            for job in jobs
        ]
        self.counts["two at once"] += len(jobs) == 2
        for each in running:
            each.start()
        for each in running:
            each.join()
        return found

    def fault(self, out: Path) -> dict[str, Any]:
        """When a process is killed: after a time, in a step, or in the middle of a file."""
        match self.draw.randrange(4):
            case 0:
                return {"kill_after": self.draw.uniform(0.01, 0.6)}
            case 1:
                return {
                    "fault": [self.draw.choice(["kill_in_tensor_file", "kill_before_rename"]), self.draw.randint(1, 4)]
                }
            case _:
                return {
                    "fault": ["kill_after_step", reached(out) + self.draw.randint(1, 6), self.draw.uniform(0, 0.02)]
                }

    def go(self, server: Processes, kind: str, out: Path, threads: int, fault: dict[str, Any]) -> Outcome:
        resume = ["--resume"] if (out / "recipe.toml").is_file() else []
        command = ("train", self.files[kind], "--out", out, *resume)
        return server.run(*command, threads=threads, patience=PATIENCE, **fault)

    def count(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            if outcome.code == -9:
                self.kills += 1
            elif outcome.code == 2 and any(words in outcome.err for words in REFUSED):
                self.counts["refused"] += 1
            elif outcome.code == 0:
                self.counts["ended"] += 1
            else:
                self.wrong.append(f"{outcome.code}: {outcome.err[-500:]}")
        if len(outcomes) == 2 and all(outcome.code == 0 for outcome in outcomes):
            self.counts["both ended"] += 1  # one after the other

    def undisturbed(self, kind: str, threads: int) -> Path:
        if (kind, threads) not in self.whole:
            out = self.folder / f"whole-{len(self.whole)}"
            outcome = self.go(self.first, kind, out, threads, {})
            assert outcome.code == 0, outcome.err
            self.whole[kind, threads] = out
        return self.whole[kind, threads]


@dataclass
class Record:
    """What earlier calls did, in a file, so that many short ones come to what a long one does."""

    path: Path | None
    kills: int = 0
    runs: int = 0
    calls: int = 0
    counts: Counter[str] = field(default_factory=Counter[str])

    @staticmethod
    def read(path: Path | None) -> Record:
        if path is None or not path.is_file():
            return Record(path)
        held = json.loads(path.read_text())
        return Record(path, held["kills"], held["runs"], held["calls"], Counter(held["counts"]))

    def with_those_of(self, killing: Killing) -> Record:
        kills, runs = self.kills + killing.kills, self.runs + killing.runs
        return Record(self.path, kills, runs, self.calls + 1, self.counts + killing.counts)

    def write(self) -> None:
        if self.path is not None:
            held = {"kills": self.kills, "runs": self.runs, "calls": self.calls, "counts": dict(self.counts)}
            self.path.write_text(json.dumps(held) + "\n")

    def told(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items()))
        return f"{self.kills} kills in {self.runs} runs ({counts})"


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--kills", type=int, default=300, help="in all, those in --record among them")
    ask.add_argument("--seconds", type=float, default=3600.0, help="stop after so many, whatever was reached")
    ask.add_argument("--seed", type=int, default=0, help="of the first call; each further one of a record has the next")
    ask.add_argument("--record", type=Path, help="a file in which kills are counted from call to call")
    asked = ask.parse_args()
    earlier = Record.read(asked.record)
    wanted = asked.kills - earlier.kills
    with tempfile.TemporaryDirectory(prefix="sublayer-kills-") as folder:
        killing = Killing(asked.seed + earlier.calls, Path(folder), asked.seconds)
        for goal in range(20, wanted + 20, 20):
            killing.go_on_until(min(goal, wanted))
            verdict = "nothing differs" if not killing.wrong else "WRONG: " + "; ".join(killing.wrong[:5])
            print(f"{earlier.with_those_of(killing).told()}: {verdict}", flush=True)  # noqa: T201
            if killing.wrong or time.monotonic() > killing.until:
                break
        if not killing.wrong:
            earlier.with_those_of(killing).write()
    sys.exit(bool(killing.wrong))


if __name__ == "__main__":
    main()
