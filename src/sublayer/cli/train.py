"""`sublayer train`: a recipe in, a trained model out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sublayer.cli.terminal import say


def train(
    recipe: Annotated[str, typer.Argument(help="A TOML file, or the name of a shipped recipe.", metavar="RECIPE")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/NAME")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a setting, as in training.steps=200.", metavar="KEY=VALUE"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint, bit for bit.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that stands in the folder.")] = False,
    device: Annotated[str, typer.Option(help="cuda, mps, cpu, or auto.")] = "auto",
) -> None:
    """Train a model. Ctrl-C saves first; --resume goes on as though nothing had happened.

    With --resume the training may be made longer (--set training.minutes=20), also when it had ended. A run that was
    interrupted can be used as it stands: `sublayer evaluate RUN`.

    A recipe with [start] goes on from another model; with [adapter] besides, only adapters on it learn.

    Example: sublayer train tatoeba-en-es-demo --out runs/demo --set training.minutes=2
    """
    import shlex

    from sublayer.config.load import load_recipe
    from sublayer.training.progress import reporter
    from sublayer.training.run import train as run
    from sublayer.training.runtime import pick_device

    loaded = load_recipe(recipe, overrides or [])
    folder = Path("runs") / loaded.recipe.name if out is None else out
    shown = reporter()
    finished = run(loaded, folder, resume=resume, overwrite=overwrite, device=pick_device(device), reporter=shown)
    if not finished:
        settings = [word for override in overrides or [] for word in ("--set", override)]
        again = shlex.join(["sublayer", "train", recipe, "--out", str(folder), *settings, "--resume"])
        shown.say(f"interrupted; the state is saved. Go on with: {again}")
        raise typer.Exit(130)
    say(f"model: {folder / 'model'}\ncurves: {folder / 'curves.png'}")
