"""Arguments and options that several commands have, with their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

ModelFolder = Annotated[Path, typer.Argument(help="A model folder, or the folder of a training run.", metavar="MODEL")]
Texts = Annotated[list[str] | None, typer.Argument(help="Texts. Default: lines of standard input.")]
Sentences = Annotated[list[str] | None, typer.Argument(help="Sentences. Default: lines of standard input.")]
BatchOfLines = Annotated[int, typer.Option(min=1, help="Lines of standard input in a batch.")]
Seed = Annotated[int | None, typer.Option(help="Random seed of sampling.")]
WeightFormat = Annotated[
    Literal["float32", "bfloat16", "int8", "int4", "exact"] | None,
    typer.Option(
        help="Weight format on a CPU; narrower formats are faster and approximate. exact: for each matrix the "
        "narrowest that keeps it as it is, such as the types of a GGUF file.",
        show_default="as they are",
    ),
]


def _use_threads(count: int | None) -> int | None:
    from sublayer.fast.engine.threads import use_threads

    use_threads(count)
    return count


Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=256,
        callback=_use_threads,
        help="Number of CPU threads. Small products run in one thread whatever is said here.",
        show_default="OMP_NUM_THREADS, else one for each processor",
    ),
]
"""Takes effect when it is read."""
Translation = Annotated[
    str | None, typer.Option(help="Translation to analyse. Default: the model's own.", metavar="TEXT")
]
Device = Annotated[str, typer.Option(help="Device to run on: cuda, mps, cpu or auto.")]
RecipeName = Annotated[
    str, typer.Argument(help="Recipe: a TOML file, or the name of a shipped recipe.", metavar="RECIPE")
]
OutFolder = Annotated[Path, typer.Argument(help="Model folder to write.", metavar="OUT")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a setting, e.g. training.steps=200; may be repeated.", metavar="KEY=VALUE"),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the folder OUT if it exists.")]
