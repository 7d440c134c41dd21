"""`sublayer tag`: a label for each word."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sublayer.cli.reading import answered, load_reader
from sublayer.cli.terminal import say


def tag(
    model: Annotated[Path, typer.Argument(help="Folder of a model, or of the run that made it.", metavar="MODEL")],
    sentences: Annotated[
        list[str] | None, typer.Argument(help="Sentences; without any, lines are read from standard input.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Lines of standard input read together.")] = 64,
    device: Annotated[str, typer.Option(help="cuda, mps, cpu, or auto.")] = "auto",
) -> None:
    """Say which label each word has. Words are what stands between spaces.

    The output is that of CoNLL files: a word a line with its tag and the tag's probability, with tabs; an empty line
    after each sentence, and one for an empty line of standard input.

    Example: sublayer tag models/tagger "Ada Lovelace lived in London ."
    """
    from sublayer.reading import Tagger

    tagger = load_reader(model, device, Tagger, "tag words")
    for _, one in answered(sentences, batch, tagger.tag):
        if one is not None:
            for word, label, probability in zip(one.words, one.tags, one.probabilities, strict=True):
                say(f"{word}\t{label}\t{probability:.4f}")
        say("")
