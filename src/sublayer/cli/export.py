"""`sublayer export`: a model as other libraries load it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sublayer.cli.arguments import ModelFolder, Overwrite
from sublayer.cli.terminal import say


class Format(StrEnum):
    """hf: a folder for `transformers`. peft: the adapters alone, for the library PEFT."""

    hf = "hf"
    peft = "peft"


def export(
    model: ModelFolder,
    out: Annotated[Path, typer.Argument(help="Folder to write.", metavar="OUT")],
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="hf: a folder that `transformers` loads. peft: the adapters alone, for a base exported as hf.",
        ),
    ] = Format.hf,
    family: Annotated[
        str | None,
        typer.Option(
            help="Model family (architecture) to write.",
            show_default="the one it was imported from, or the first that fits",
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Export a model and its tokenizer as a folder that `transformers` loads.

    The export is exact. A model that no architecture of `transformers` can express is refused; the error says why.

    Example: sublayer export models/my-llama exported/my-llama --format hf

    Example: sublayer export runs/trec exported/trec-adapters --format peft
    """
    from sublayer.hub import folder
    from sublayer.hub.destination import require_destination, with_bases
    from sublayer.hub.exporting import export as run
    from sublayer.hub.generation_config import inexpressible
    from sublayer.hub.peft import export_adapters

    require_destination(out, with_bases(folder.find(model)), overwrite=overwrite)
    found = folder.read(model)
    origin = found.imported
    if form is Format.peft:
        say(f"{form.value}: {out} ({export_adapters(out, found, family).name})")
        return
    written = run(
        out,
        found.model,
        tokenizer=found.tokenizer,
        family=origin.get("family") if family is None else family,
        tokens=origin.get("tokens"),
        decoding=found.decoding,
    )
    for each in inexpressible(found.model.config, found.decoding):
        say(f"not said in generation_config.json: {each}", err=True)
    say(f"{form.value}: {out} ({written.name})")
