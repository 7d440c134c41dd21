"""`--cluster`: what `translate`, `generate`, `embed` and `classify` have in common where they work on a data set."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sublayer.cli.options import Group, Told
from sublayer.cli.progress import reported
from sublayer.cli.terminal import say
from sublayer.errors import ConfigError

OPTIONS: Mapping[str, Any] = {
    "cluster": Annotated[
        bool | None,
        typer.Option("--cluster", help="Work on the files --in with Ray, on many machines; docs/scaling.md."),
    ],
    "inputs": Annotated[
        list[str] | None,
        typer.Option("--in", help="Parquet or JSON-lines files, such as 'corpus/*.parquet'; may be repeated."),
    ],
    "out": Annotated[Path | None, typer.Option("--out", help="Folder to write; begun before, it goes on.")],
    "column": Annotated[
        str | None, typer.Option("--column", help="Column of the text.", show_default="text, else source")
    ],
    "output_format": Annotated[
        Literal["parquet", "jsonl"] | None,
        typer.Option("--format", help="Format of the files in --out.", show_default="that of --in"),
    ],
    "workers": Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Copies of the model.", show_default="as many as there are CPUs for"),
    ],
    "cpus_per_worker": Annotated[
        int | None, typer.Option("--cpus-per-worker", min=1, help="Threads of each.", show_default="1")
    ],
    "address": Annotated[
        str | None,
        typer.Option(
            "--address", help="Ray cluster: auto, or HOST:PORT of its head.", show_default="one of this machine"
        ),
    ],
    "rows_per_part": Annotated[
        int | None, typer.Option("--rows-per-part", min=1, help="Rows of a file in --out.", show_default="10000")
    ],
    "every_row": Annotated[
        bool | None, typer.Option("--every-row", help="End with an error if any row failed, not only if all did.")
    ],
}


CLUSTER: Group = {
    name: inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=each)
    for name, each in OPTIONS.items()
}


def in_cluster(
    job: Callable[..., Any], model: Path, told: Told, *, texts: object, device: str, refused: Mapping[str, bool],
    **options: Any,
) -> None:  # fmt: skip
    """Do a job of `sublayer.cluster` as `--cluster` asks for it, and say on standard error what came of it.

    Args:
        told: of `OPTIONS`. texts: those that were given besides. refused: other options that have no place here, and
            whether they were given.

    Raises:
        ConfigError: options that do not go together. And as the job.
    """
    how = dict(told)
    if not how.pop("cluster", False):
        raise ConfigError("options of --cluster were given without it", "Add --cluster, or leave them out.")
    wrong = next((name for name, given in {**refused, "a text": bool(texts)}.items() if given), None)
    if wrong is not None:
        raise ConfigError(f"--cluster and {wrong} were both given", "Leave one of them out.")
    if "inputs" not in how or "out" not in how:
        raise ConfigError("--cluster needs --in FILES and --out FOLDER", "Name both.")
    inputs, out, every_row = how.pop("inputs"), how.pop("out"), how.pop("every_row", False)
    summary = reported(
        job.__name__,
        lambda progress: job(
            model, inputs, out, **options, **how, device="cpu" if device == "auto" else device, progress=progress
        ),
        "parts",
    )
    speed = f", {summary.new:,} of them now, {summary.new / summary.seconds:,.1f} rows/s" if summary.new else ""
    say(f"{out}: {summary.rows:,} rows in {summary.parts:,} parts{speed}; {summary.failed:,} failed", err=True)
    if summary.first:
        say(f"such as {summary.first}", err=True)
    summary.require(every_row=every_row)
