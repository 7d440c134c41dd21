"""The parts one after another, and the report of what has been measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from sublayer.compare import parallel, positions, recall, translation
from sublayer.compare.ledger import Ledger
from sublayer.compare.plan import PARTS, Part, Plan
from sublayer.compare.report import write_report
from sublayer.compare.runs import remove_runs
from sublayer.training.progress import Reporter


def compare(
    plan: Plan,
    parts: Sequence[Part],
    out: Path,
    device: torch.device,
    told: Callable[[], Reporter],
    *,
    overwrite: bool = False,
) -> Path:
    """Measure what has not been measured, and write the report of everything in the folder; its path.

    out: report.md, its pictures, figures/PART.json, and runs/PART, the models that were trained for it.

    Raises:
        ConfigError: the folder holds figures of another plan.
    """
    for part in PARTS:
        if part not in parts:
            continue
        if overwrite:
            (out / "figures" / f"{part}.json").unlink(missing_ok=True)
            remove_runs(out / "runs" / part)
        ledger = Ledger(out / "figures" / f"{part}.json", plan.settings(part))
        runs = out / "runs" / part
        started = time.monotonic()
        match part:
            case "parallel":
                parallel.measure(plan.parallel, ledger, device, told)
            case "recall":
                recall.measure(plan.recall, ledger, device, told)
            case "translation":
                translation.measure(plan.translation, ledger, device, told, runs)
            case "positions":
                positions.measure(plan.positions, ledger, device, told, runs)
        told().say(f"{part}: done in {(time.monotonic() - started) / 60:.1f} minutes")
    return write_report(out)
