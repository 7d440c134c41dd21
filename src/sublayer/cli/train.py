"""`sublayer train`: a recipe in, a trained model out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sublayer.cli.arguments import Device, Overrides, RecipeName
from sublayer.cli.terminal import say


def train(
    recipe: RecipeName,
    out: Annotated[Path | None, typer.Option(help="Folder of the training run.", show_default="runs/NAME")] = None,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint, bit for bit.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
    device: Device = "auto",
) -> None:
    """Train a model from a recipe. Ctrl-C saves a checkpoint and stops; --resume continues exactly where it stopped.

    With --resume a training can also be extended (--set training.minutes=20), even after its end. An interrupted run
    can be used as it is: `sublayer evaluate RUN`.

    Several processes, on one machine or many, train together where torchrun starts them:
    torchrun --nproc-per-node 4 -m sublayer train RECIPE. The recipe says how ([training.parallel]).

    A recipe with [start] fine-tunes another model; with [adapter] as well, it trains only LoRA adapters.

    Example: sublayer train tatoeba-en-es-demo --out runs/demo --set training.minutes=2
    """
    import shlex

    from sublayer.config.load import load_recipe
    from sublayer.training.distributed.ranks import own_device, rank
    from sublayer.training.progress import Silent, reporter
    from sublayer.training.run import train as run
    from sublayer.training.runtime import pick_device

    loaded = load_recipe(recipe, overrides or [])
    folder = Path("runs") / loaded.recipe.name if out is None else out
    speaks = rank() == 0
    shown = reporter() if speaks else Silent()
    chosen = own_device(pick_device(device))
    finished = run(loaded, folder, resume=resume, overwrite=overwrite, device=chosen, reporter=shown)
    if not finished:
        settings = [word for override in overrides or [] for word in ("--set", override)]
        again = shlex.join(["sublayer", "train", recipe, "--out", str(folder), *settings, "--resume"])
        shown.say(f"interrupted; the state is saved. Go on with: {again}")
        raise typer.Exit(130)
    if speaks:
        say(f"model: {folder / 'model'}\ncurves: {folder / 'curves.png'}")
