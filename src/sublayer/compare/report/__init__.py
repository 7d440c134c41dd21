"""The report: tables and pictures of what was measured, with sentences that are made of the figures.

Nothing is said of a figure that is not computed from it; what the figures cannot show is said once for each part,
beside its section.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sublayer.compare.ledger import read_ledger
from sublayer.compare.plan import PARTS, Part
from sublayer.compare.report.markdown import Entries
from sublayer.compare.report.parallel import parallel
from sublayer.compare.report.positions import positions
from sublayer.compare.report.recall import recall
from sublayer.compare.report.translation import translation
from sublayer.errors import DataError
from sublayer.files import write_text

SECTIONS: Mapping[Part, Callable[[Entries, Mapping[str, Any], Path], str]] = {
    "parallel": parallel,
    "recall": recall,
    "translation": translation,
    "positions": positions,
}
"""Each draws its pictures into the folder that it is given, and gives its text."""


def write_report(out: Path) -> Path:
    """report.md of the ledgers in out/figures, with its pictures in out/pictures; the path of the report.

    Raises:
        DataError: nothing has been measured there, or the figures are damaged.
    """
    sections: list[str] = []
    for part in PARTS:
        ledger = read_ledger(out / "figures" / f"{part}.json")
        if ledger is not None and ledger["entries"]:
            sections.append(SECTIONS[part](ledger["entries"], ledger["settings"], out / "pictures"))
            sections.append(_machine(ledger["machine"]))
    if not sections:
        raise DataError(f"there are no figures in {out / 'figures'}", "Measure first: sublayer compare.")
    head = """# The Transformer against recurrent networks, measured

Written by `sublayer compare` from the figures in `figures/*.json`; run it again and it measures what is missing, or
`sublayer compare --redraw` to draw only. In every comparison the contenders have as many parameters as their widths
allow to match and see the same texts in the same order. Where several optimizers or learning rates were tried, each
contender has its own best, and it is shown; otherwise it is AdamW for all.
"""
    write_text(out / "report.md", "\n".join([head, *sections]))
    return out / "report.md"


def _machine(machine: Mapping[str, Any]) -> str:
    gpu = f"; {machine['gpu']}" if machine["gpu"] else ""
    return (
        f"Measured on {machine['processor']}, {machine['threads']} of {machine['cores']} cores{gpu}; "
        f"torch {machine['torch']}.\n"
    )
