"""The models that are trained for the comparison, each in a folder that says whose it is."""

from __future__ import annotations

from pathlib import Path

import torch

from sublayer.config.load import LoadedRecipe
from sublayer.errors import ConfigError
from sublayer.files import remove_parts, write_json
from sublayer.training.progress import Reporter
from sublayer.training.run import train
from sublayer.training.run_folder import remove_run

MARK = ".compare.json"
"""The file in a folder that was made here; a folder without it is the user's, whatever it is called."""


def trained(whole: LoadedRecipe, out: Path, device: torch.device, reporter: Reporter) -> None:
    """Train into `out`, where that has not been done yet.

    Raises:
        ConfigError: something else stands there. KeyboardInterrupt: the user stopped it.
    """
    if not (out / MARK).is_file():
        if out.is_dir() and any(out.iterdir()):
            raise ConfigError(f"{out} was not made by this comparison", "Move it away, or choose another --out.")
        write_json(out / MARK, {"for": whole.recipe.name})
    if not (out / "model" / "config.json").is_file() and not train(
        whole, out, resume=False, overwrite=True, device=device, reporter=reporter
    ):
        raise KeyboardInterrupt


def remove_runs(folder: Path) -> None:
    """Remove the runs in `folder` that were made here, and nothing else."""
    for mark in sorted(folder.glob(f"*/{MARK}")):
        remove_run(mark.parent)
        remove_parts(mark.parent, (MARK,))
    remove_parts(folder, ())
