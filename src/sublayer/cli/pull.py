"""`sublayer pull`: a model from elsewhere becomes a folder of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sublayer.cli.arguments import OutFolder, Overwrite
from sublayer.cli.terminal import say
from sublayer.errors import CheckpointError


def pull(
    what: Annotated[
        str,
        typer.Argument(
            help="Checkpoint folder (Hugging Face, CTranslate2), .gguf or .argosmodel file, ORG/NAME on the"
            " Hugging Face hub, or minilm, smollm2.",
            metavar="MODEL",
        ),
    ],
    out: OutFolder,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(help="Data type to store the weights in.", show_default="as they are"),
    ] = None,
    overwrite: Overwrite = False,
    unsafe_pickle: Annotated[
        bool,
        typer.Option("--unsafe-pickle", help="Also read .bin and .pt files, tensors only (weights_only)."),
    ] = False,
    allow_nonfinite: Annotated[
        bool, typer.Option("--allow-nonfinite", help="Accept weights that are NaN or infinite.")
    ] = False,
    base: Annotated[
        Path | None,
        typer.Option(help="Base model folder, when MODEL is a PEFT adapter folder.", metavar="MODEL"),
    ] = None,
) -> None:
    """Import a checkpoint of another library as a model folder, which every other command takes.

    The import is exact. An architecture, a setting or a tensor that sublayer does not know is refused by name.

    Example: sublayer pull smollm2 models/smollm2
    """
    import torch

    from sublayer.cli.progress import reported
    from sublayer.hub import catalogue
    from sublayer.hub.destination import require_destination, with_bases
    from sublayer.hub.peft import import_adapters, is_peft
    from sublayer.hub.pulling import pull as run
    from sublayer.untrusted import expanded

    # A short name goes before a folder of that name.
    sources = [] if what in catalogue.names() else [expanded(what)]
    sources += [] if base is None else [base, *with_bases(base / "model"), *with_bases(base)]
    require_destination(out, sources, overwrite=overwrite)
    if base is not None or is_peft(Path(what)):
        if base is None:
            raise CheckpointError(f"{what} holds adapters, not a model", "Name the model they belong to: --base MODEL.")
        if not is_peft(Path(what)):
            raise CheckpointError(f"{what} holds no adapters that --base could go with", "Leave --base out.")
        adapted = import_adapters(Path(what), base, out).adapted
        assert adapted is not None
        say(f"adapters: {out} (rank {adapted.c.rank}, on {adapted.base.path})")
        return
    wanted = None if dtype is None else getattr(torch, dtype)
    bundle = reported(
        f"fetching {what}",
        lambda progress: run(
            what,
            out,
            dtype=wanted,
            unsafe_pickle=unsafe_pickle,
            allow_nonfinite=allow_nonfinite,
            progress=progress,
        ),
    )
    count = sum(parameter.numel() for parameter in bundle.model.parameters())
    family, kind = bundle.imported["family"], bundle.model.config.kind
    say(f"model: {out} ({family}, {kind}, {count:,} parameters)")
