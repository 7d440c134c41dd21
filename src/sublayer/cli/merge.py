"""`sublayer merge`: adapters become part of the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sublayer.cli.terminal import say


def merge(
    model: Annotated[Path, typer.Argument(help="Folder of adapters, or of the run that made them.", metavar="MODEL")],
    out: Annotated[Path, typer.Argument(help="Where the new model folder is to be.", metavar="OUT")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what stands at OUT.")] = False,
) -> None:
    """Write a model that was trained as adapters as a model folder that needs no base.

    Tokenizer, chat template and settings are kept. It computes what the adapters on their base do, as fast as the base.

    Example: sublayer merge runs/trec models/trec
    """
    from sublayer.hub.destination import require_destination, with_bases
    from sublayer.hub.folder import find
    from sublayer.hub.merging import merge as run

    require_destination(out, with_bases(find(model)), overwrite=overwrite)
    contents = run(model, out)
    count = sum(parameter.numel() for parameter in contents.model.parameters())
    say(f"model: {out} ({contents.model.config.kind}, {count:,} parameters)")
