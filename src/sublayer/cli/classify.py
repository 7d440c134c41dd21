"""`sublayer classify`: a label for each text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sublayer.cli.reading import answered, load_reader
from sublayer.cli.terminal import say


def classify(
    model: Annotated[Path, typer.Argument(help="Folder of a model, or of the run that made it.", metavar="MODEL")],
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts; without any, lines are read from standard input.")
    ] = None,
    best: Annotated[int, typer.Option(min=1, help="Labels to show for each text.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Lines of standard input read together.")] = 64,
    device: Annotated[str, typer.Option(help="cuda, mps, cpu, or auto.")] = "auto",
) -> None:
    """Say which label each text has, and how probable it is: label and probability, with tabs, then the text.

    A line of standard input gives a line; an empty one gives an empty one.

    Example: sublayer classify models/sentiment "A film to see twice."

    Example: sublayer classify models/sentiment --best 2 < english.txt
    """
    from sublayer.reading import Classifier

    classifier = load_reader(model, device, Classifier, "classify texts")
    for text, one in answered(texts, batch, classifier.classify):
        ranked = [] if one is None else list(one.probabilities.items())[:best]
        say("\t".join([*(f"{label}\t{probability:.4f}" for label, probability in ranked), text]) if one else "")
