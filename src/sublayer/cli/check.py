"""`sublayer check`: whether the laws hold on a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def check(
    model: Annotated[Path, typer.Argument(help="A model folder.", metavar="MODEL")],
    seed: Annotated[int, typer.Option(help="Of the random tokens on which the laws are tried.")] = 0,
    precision: Annotated[
        Literal["model", "float64"],
        typer.Option(help="Check the model as it runs, or a copy in float64, to ten digits."),
    ] = "model",
) -> None:
    """Check on your own model what must hold on any: batched = single, cached = uncached, fused = explicit, and more.

    Exits with 1 where a law does not hold.

    Example: sublayer check runs/en-es
    """
    import copy

    from rich.console import Console
    from rich.table import Table

    import sublayer
    from sublayer import laws
    from sublayer.errors import CheckpointError
    from sublayer.models import EncoderDecoder

    checked = sublayer.load(model).model
    if not isinstance(checked, EncoderDecoder):
        raise CheckpointError(f"{model} is no encoder-decoder: the laws speak of those only", "Name another model.")
    if precision == "float64":
        checked = copy.deepcopy(checked).double()
    table = Table("law", "holds", "error", "allowed", "what was compared")
    findings = laws.check_all(checked, seed)
    for finding in findings:
        holds = "[green]yes[/green]" if finding.passed else "[red]no[/red]"
        table.add_row(finding.law, holds, f"{finding.error:.1e}", f"{finding.tolerance:.0e}", finding.detail)
    Console().print(table)
    failed = [finding.law for finding in findings if not finding.passed]
    if failed:
        typer.echo(f"{len(failed)} of {len(findings)} laws do not hold: {', '.join(failed)}", err=True)
        raise typer.Exit(1)
