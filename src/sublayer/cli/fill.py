"""`sublayer fill`: the words that may stand behind a mask."""

from __future__ import annotations

from typing import Annotated

import typer

from sublayer.cli.arguments import BatchOfLines, Device, ModelFolder, Threads, WeightFormat
from sublayer.cli.reading import answered, load_reader
from sublayer.cli.terminal import say


def fill(
    model: ModelFolder,
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts with [MASK]. Default: lines of standard input.")
    ] = None,
    best: Annotated[int, typer.Option(min=1, help="Number of candidates to print for each mask.")] = 5,
    batch: BatchOfLines = 64,
    weights: WeightFormat = None,
    threads: Threads = None,
    device: Device = "auto",
) -> None:
    """Predict the token at each [MASK]. Prints probability, token and completed text, separated by tabs, best first.

    An empty line of standard input gives an empty line.

    Example: sublayer fill models/bert "the [MASK] sat on the mat"
    """
    from sublayer.reading import Filler

    filler = load_reader(model, device, Filler, "fill masks", weights)
    for _, masks in answered(texts, batch, lambda chunk: filler.fill(chunk, best=best)):
        if masks is None:
            say("")
        for one in (one for options in masks or () for one in options):
            say(f"{one.probability:.4f}\t{one.token}\t{one.text}")
