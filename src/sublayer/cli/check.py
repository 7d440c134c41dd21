"""`sublayer check`: whether the laws hold on a model."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from sublayer.cli import terminal
from sublayer.cli.arguments import ModelFolder
from sublayer.cli.terminal import say


def check(
    model: ModelFolder,
    seed: Annotated[int, typer.Option(help="Random seed of the test inputs.")] = 0,
    precision: Annotated[
        Literal["model", "float64"],
        typer.Option(help="Check the model in its own type, or a copy in float64 with tighter tolerances."),
    ] = "model",
) -> None:
    """Check the laws on your own model: equivalences such as batched = single, cached = uncached, packed = separate.

    Works for every kind of model; an encoder is run through its head. Laws that do not apply to the model are listed
    below the table. The exit code is 1 if a law fails.

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
    not_applicable = laws.not_applicable(checked)
    for why in dict.fromkeys(not_applicable.values()):
        names = ", ".join(law for law, its in not_applicable.items() if its == why)
        console.print(f"[dim]Not asked, because {why}: {names}.[/dim]")
    failed = [finding.law for finding in findings if not finding.passed]
    if failed:
        say(f"{len(failed)} of {len(findings)} laws do not hold: {', '.join(failed)}", err=True)
        raise typer.Exit(1)
