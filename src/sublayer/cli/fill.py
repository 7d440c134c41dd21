"""`sublayer fill`: the words that may stand behind a mask."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sublayer.cli.reading import answered, load_reader
from sublayer.cli.terminal import say


def fill(
    model: Annotated[Path, typer.Argument(help="Folder of a model, or of the run that made it.", metavar="MODEL")],
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts with [MASK]; without any, lines are read from standard input.")
    ] = None,
    best: Annotated[int, typer.Option(min=1, help="Words to show for each mask.")] = 5,
    batch: Annotated[int, typer.Option(min=1, help="Lines of standard input read together.")] = 64,
    device: Annotated[str, typer.Option(help="cuda, mps, cpu, or auto.")] = "auto",
) -> None:
    """Say what may stand behind each [MASK]: probability, word and the text with it, with tabs, the best first.

    An empty line of standard input gives an empty line.

    Example: sublayer fill models/bert "the [MASK] sat on the mat"
    """
    from sublayer.reading import Filler

    filler = load_reader(model, device, Filler, "fill masks")
    for _, masks in answered(texts, batch, lambda chunk: filler.fill(chunk, best=best)):
        if masks is None:
            say("")
        for one in (one for options in masks or () for one in options):
            say(f"{one.probability:.4f}\t{one.token}\t{one.text}")
