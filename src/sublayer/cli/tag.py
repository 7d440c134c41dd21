"""`sublayer tag`: a label for each word."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sublayer.cli.reading import answered, load_reader
from sublayer.cli.terminal import say


def tag(
    model: Annotated[Path, typer.Argument(help="A model folder, or the folder of a training run.", metavar="MODEL")],
    sentences: Annotated[list[str] | None, typer.Argument(help="Sentences. Default: lines of standard input.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Lines of standard input in a batch.")] = 64,
    device: Annotated[str, typer.Option(help="Device to run on: cuda, mps, cpu or auto.")] = "auto",
) -> None:
    """Tag each word of a sentence. Words are separated by spaces.

    Prints CoNLL format: one word per line with its tag and the tag's probability, separated by tabs; an empty line
    after each sentence, and for each empty line of standard input.

    Example: sublayer tag models/tagger "Ada Lovelace lived in London ."
    """
    from sublayer.reading import Tagger

    tagger = load_reader(model, device, Tagger, "tag words")
    for _, one in answered(sentences, batch, tagger.tag):
        if one is not None:
            for word, label, probability in zip(one.words, one.tags, one.probabilities, strict=True):
                say(f"{word}\t{label}\t{probability:.4f}")
        say("")
