"""`sublayer merge`: adapters become part of the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sublayer.cli.arguments import OutFolder, Overwrite
from sublayer.cli.terminal import say


def merge(
    model: Annotated[
        Path, typer.Argument(help="A folder of adapters, or the folder of the run that trained them.", metavar="MODEL")
    ],
    out: OutFolder,
    overwrite: Overwrite = False,
) -> None:
    """Merge adapters into their base model, and write the result as a model folder of its own.

    Tokenizer, chat template and settings are kept. The result computes what base and adapters do together.

    Example: sublayer merge runs/smollm2-trec models/smollm2-trec
    """
    from sublayer.hub.destination import require_destination, with_bases
    from sublayer.hub.folder import find
    from sublayer.hub.merging import merge as run

    require_destination(out, with_bases(find(model)), overwrite=overwrite)
    bundle = run(model, out)
    count = sum(parameter.numel() for parameter in bundle.model.parameters())
    say(f"model: {out} ({bundle.model.config.kind}, {count:,} parameters)")
