"""Kill one of the processes that train together, many times, at random moments, and see that nothing is lost.

    python tests/distributed/kills.py --kills 30 --seconds 3600

The runs go on with the same number of processes in the same layout, and come to what undisturbed ones come to, to the
bit; or with other numbers in other layouts, and come to the same losses but for rounding. Prints what was done, and
ends with 1 where anything differs.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from group import Ended, groups  # noqa: E402

from small_run import same, write  # noqa: E402
from sublayer.files import ASIDE  # noqa: E402
from sublayer.training.checkpoint import listed  # noqa: E402
from sublayer.training.distributed import sharded  # noqa: E402
from sublayer.training.metrics import read_metrics  # noqa: E402

LAYOUTS: list[tuple[int, tuple[str, ...]]] = [
    (2, ()),
    (2, ("training.parallel.data=shard",)),
    (2, ("training.parallel.tensor=2",)),
    (4, ("training.parallel.data=shard", "training.parallel.tensor=2")),
    (3, ("training.parallel.data=shard",)),
]
STEPS = 24
TRAINING: dict[str, Any] = {"steps": STEPS, "checkpoint_every": 3, "validate_every": 8, "keep_checkpoints": 3}


@dataclass
class Killing:
    """Counts what happens. wrong: what must not have happened."""

    seed: int
    folder: Path
    seconds: float
    kills: int = 0
    runs: int = 0
    wrong: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.draw, self.until = random.Random(self.seed), time.monotonic() + self.seconds
        still = {side: {"block": {"dropout": 0.0}} for side in ("encoder", "decoder")}
        self.dropped = write(self.folder / "dropped", training=TRAINING)
        self.still = write(self.folder / "still", training=TRAINING, model=still)
        self.whole: dict[tuple[Path, int], Path] = {}
        self.took = 3.0

    def go_on_until(self, kills: int) -> None:
        while self.kills < kills and time.monotonic() < self.until and not self.wrong:
            self.runs += 1
            self.one(self.folder / f"run-{self.runs}", kills, fixed=self.runs % 2 == 1)

    def one(self, out: Path, kills: int, *, fixed: bool) -> None:
        """One run, killed on its way to its end. fixed: always in the same layout."""
        layout = self.draw.randrange(len(LAYOUTS))
        file = self.dropped if fixed else self.still
        for _ in range(6):
            if self.kills >= kills or time.monotonic() > self.until:
                break
            size = LAYOUTS[layout][0]
            ended = self.go(file, out, layout, (self.draw.randrange(size), self.draw.uniform(0.0, self.took)))
            self.kills += any(each.code == -9 for each in ended)
            self.expect(out, ended, killed=True)
            layout = layout if fixed else self.draw.randrange(len(LAYOUTS))
        self.expect(out, self.go(file, out, layout), killed=False)
        if not self.wrong:
            self.compare(self.undisturbed(file, layout if fixed else 0), out, exactly=fixed)

    def go(self, file: Path, out: Path, layout: int, kill: tuple[int, float] | None = None) -> list[Ended]:
        size, over = LAYOUTS[layout]
        settings = [word for each in over for word in ("--set", each)]
        resume = ["--resume"] if (out / "recipe.toml").is_file() else []
        arguments = ["train", str(file), "--out", str(out), *settings, *resume]
        return groups().run(size, "command", kill=kill, arguments=arguments)

    def expect(self, out: Path, ended: list[Ended], *, killed: bool) -> None:
        """A process ends well, or because it or another was killed; it never complains."""
        allowed = (0, -9, 143, -15, 2) if killed else (0,)
        for rank, each in enumerate(ended):
            complains = "Traceback" in each.err or "fault in sublayer" in each.err
            if each.code not in allowed or complains:
                self.wrong.append(f"{out.name}, rank {rank}: {each.code} {each.err[-1500:]}")

    def undisturbed(self, file: Path, layout: int) -> Path:
        if (file, layout) not in self.whole:
            out = self.folder / f"whole-{len(self.whole)}"
            began = time.monotonic()
            self.expect(out, self.go(file, out, layout), killed=False)
            self.took = time.monotonic() - began
            self.whole[file, layout] = out
        return self.whole[file, layout]

    def compare(self, one: Path, other: Path, *, exactly: bool) -> None:
        lines = [list(read_metrics(each / "metrics.jsonl")) for each in (one, other)]
        losses = [[(line["step"], line["loss"]) for line in each if "loss" in line] for each in lines]
        if [step for step, _ in losses[1]] != list(range(1, STEPS + 1)):
            self.wrong.append(f"{other.name}: the log has the steps {[step for step, _ in losses[1]]}")
        elif exactly and losses[0] != losses[1]:
            self.wrong.append(f"{other.name}: other losses")
        elif max(abs(a - b) / a for (_, a), (_, b) in zip(*losses, strict=True)) > 1e-4:
            self.wrong.append(f"{other.name}: losses that differ by more than rounding")
        if exactly:
            left, right = (sharded.read(listed(each / "checkpoints")[-1]).tensors for each in (one, other))
            self.wrong += [f"{other.name}: {part}/{n}" for part in left for n in same(left[part], right[part])]
        leftovers = [str(path) for path in other.rglob(f"{ASIDE}*")]
        self.wrong += [f"{other.name}: left {leftovers}"] if leftovers else []


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--kills", type=int, default=30)
    ask.add_argument("--seconds", type=float, default=3600.0, help="stop after so many, whatever was reached")
    ask.add_argument("--seed", type=int, default=0)
    asked = ask.parse_args()
    with tempfile.TemporaryDirectory(prefix="sublayer-kills-") as folder:
        killing = Killing(asked.seed, Path(folder), asked.seconds)
        for goal in range(5, asked.kills + 5, 5):
            killing.go_on_until(min(goal, asked.kills))
            verdict = "nothing is lost" if not killing.wrong else "WRONG: " + "; ".join(killing.wrong[:5])
            print(f"{killing.kills} kills in {killing.runs} runs: {verdict}", flush=True)  # noqa: T201
            if killing.wrong or time.monotonic() > killing.until:
                break
    sys.exit(bool(killing.wrong))


if __name__ == "__main__":
    main()
