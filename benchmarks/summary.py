"""Medians, spreads and ratios of interleaved rounds; tables and files of results."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import machine
import numpy as np


@dataclass(frozen=True)
class Summary:
    """The middle of some measurements, and the quarters on either side of it."""

    median: float
    lower: float
    upper: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        lower, median, upper = np.percentile(np.asarray(values, dtype=float), [25, 50, 75]).tolist()
        return cls(median, lower, upper, len(values))

    @classmethod
    def of_ratios(cls, ours: Sequence[float], theirs: Sequence[float]) -> Summary:
        """Of the ratio of each round: what slows a whole round down cancels out."""
        return cls.of([one / other for one, other in zip(ours, theirs, strict=True)])

    def plain(self) -> dict[str, float]:
        return asdict(self)

    def shown(self, digits: int = 2) -> str:
        return f"{self.median:,.{digits}f} ({self.lower:,.{digits}f} – {self.upper:,.{digits}f})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def write(options: argparse.Namespace, result: Mapping[str, Any], device: str = "cpu") -> Path:
    """Write the machine, the settings and `result` as JSON, to `<options.out>/<options.name>-<kind>.json`."""
    path = options.out / f"{options.name}-{machine.kind(device)}.json"
    # Where folders are is this machine's business.
    settings = {name: value.name if isinstance(value, Path) else value for name, value in vars(options).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {"machine": machine.facts(device), "settings": settings, **result}
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return path
