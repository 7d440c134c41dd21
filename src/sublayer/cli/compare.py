"""`sublayer compare`: the Transformer against recurrent networks, measured here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sublayer.cli.arguments import Device
from sublayer.cli.terminal import say
from sublayer.errors import ConfigError, nearest


def compare(
    parts: Annotated[
        list[str] | None,
        typer.Argument(
            help="Parts to run: parallel, recall, translation, positions.", metavar="[PART]...", show_default="all four"
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="A reduced comparison: under 15 minutes on two cores instead of an hour and a quarter."
        ),
    ] = (False),
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write the report to.", show_default="runs/compare, or runs/compare-quick"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Measure again what the folder already holds.")
    ] = False,
    redraw: Annotated[
        bool, typer.Option("--redraw", help="Write the report from the measurements in the folder, without measuring.")
    ] = (False),
    device: Device = "auto",
) -> None:
    """Compare a Transformer with recurrent networks of the same number of parameters, and write a report with plots.

    parallel: training speed by sequence length. recall: associative recall over a distance, and the gradient from
    there. translation: quality over training time, by sentence length. positions: position encodings on texts longer
    than in training. Measurements are kept in the folder and are not repeated.

    Example: sublayer compare --quick

    Example: sublayer compare recall parallel --out runs/compare
    """
    from sublayer.compare.plan import FULL, PARTS, QUICK, Part
    from sublayer.compare.report import write_report
    from sublayer.compare.running import compare as run
    from sublayer.training.progress import reporter
    from sublayer.training.runtime import pick_device

    for part in parts or ():
        if part not in PARTS:
            raise ConfigError(f"there is no part '{part}'", nearest(part, PARTS))
    folder = Path("runs") / ("compare-quick" if quick else "compare") if out is None else out
    if redraw:
        say(write_report(folder))
        return
    wanted = frozenset(parts or PARTS)
    chosen: list[Part] = [part for part in PARTS if part in wanted]
    plan = QUICK if quick else FULL
    say(run(plan, chosen, folder, pick_device(device), reporter, overwrite=overwrite))
