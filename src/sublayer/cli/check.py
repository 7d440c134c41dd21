"""`sublayer check`: whether the laws hold on a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sublayer.cli import terminal
from sublayer.cli.terminal import say


def check(
    model: Annotated[Path, typer.Argument(help="A model folder.", metavar="MODEL")],
    seed: Annotated[int, typer.Option(help="Of the random tokens on which the laws are tried.")] = 0,
    precision: Annotated[
        Literal["model", "float64"],
        typer.Option(help="Check the model as it runs, or a copy in float64, to ten digits."),
    ] = "model",
) -> None:
    """Check on your own model what must hold on any: batched = single, cached = uncached, packed = separate, and more.

    The model may be of any shape; an encoder is asked through its head. Laws that have nothing to say about its shape
    are named below the table. Exits with 1 where a law does not hold.

    Example: sublayer check runs/en-es
    """
    import copy

    from rich.table import Table

    from sublayer import laws
    from sublayer.hub.folder import read

    checked = read(model).model
    if precision == "float64":
        checked = copy.deepcopy(checked).double()
    table = Table("law", "holds", "error", "allowed", "what was compared")
    findings = laws.check_all(checked, seed)
    for finding in findings:
        holds = "[green]yes[/green]" if finding.passed else "[red]no[/red]"
        table.add_row(finding.law, holds, f"{finding.error:.1e}", f"{finding.tolerance:.0e}", finding.detail)
    console = terminal.console()
    console.print(table)
    silent = laws.silent(checked)
    for why in dict.fromkeys(silent.values()):
        names = ", ".join(law for law, its in silent.items() if its == why)
        console.print(f"[dim]Not asked, because {why}: {names}.[/dim]")
    failed = [finding.law for finding in findings if not finding.passed]
    if failed:
        say(f"{len(failed)} of {len(findings)} laws do not hold: {', '.join(failed)}", err=True)
        raise typer.Exit(1)
