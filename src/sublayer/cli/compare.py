"""`sublayer compare`: the Transformer against recurrent networks, measured here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sublayer.cli.terminal import say


def compare(
    parts: Annotated[
        list[str] | None,
        typer.Argument(help="parallel, recall, translation, positions.", metavar="[PART]...", show_default="all four"),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Under 15 minutes on two cores, instead of an hour and a quarter.")
    ] = (False),
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report.", show_default="runs/compare, or runs/compare-quick")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Measure anew what is in the folder.")] = False,
    redraw: Annotated[bool, typer.Option("--redraw", help="Measure nothing: write the report of what is there.")] = (
        False
    ),
    device: Annotated[str, typer.Option(help="cuda, mps, cpu, or auto.")] = "auto",
) -> None:
    """Measure a Transformer against recurrent networks of as many parameters, and write one report with pictures.

    parallel: speed of training against the length of the texts. recall: what is remembered over a distance, and the
    gradient that comes back from it. translation: quality against time, by the length of the sentence. positions: kinds
    of positions on texts longer than in training. What has been measured is kept, and not measured again.

    Example: sublayer compare --quick

    Example: sublayer compare recall parallel --out runs/compare
    """
    from sublayer.compare.plan import FULL, PARTS, QUICK, Part
    from sublayer.compare.report import write_report
    from sublayer.compare.running import compare as run
    from sublayer.errors import ConfigError, nearest
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
