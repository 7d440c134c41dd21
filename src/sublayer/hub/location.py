"""Where a model folder is, and what it is made of. Needs no torch."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Any

from sublayer.config.folders import UNFINISHED, model_file
from sublayer.errors import CheckpointError
from sublayer.untrusted import exists, is_file, read_object

WEIGHTS = "model.safetensors"
ADAPTERS = "adapter.safetensors"
FORMAT = 1
LONGEST_NAME = 120
"""Letters of a folder's name that are shown where there is no such folder."""
PARTS = (
    "config.json",
    WEIGHTS,
    ADAPTERS,
    "tokenizer.json",
    "sublayer_tokenizer.json",
    "recipe.toml",
    "README.md",
    "test.jsonl",
    "scores.json",
    "step.json",
    "engine*.bin",
    "shortlist.safetensors",
)
"""What a model folder may consist of, as patterns; what else stands in it is the user's, and is never removed."""


def find(path: Path) -> Path:
    """Return the model folder at `path`, or the one inside the run folder at `path`.

    For an unfinished run this is the model of the last checkpoint or of an earlier end; the logger "sublayer" warns
    about it.
    """
    file = model_file(path)
    if file is not None:
        if file.parent.name == UNFINISHED or is_file(file.parent / STEP):
            _warn_unfinished(file.parent)
        return file.parent
    if exists(path):
        raise CheckpointError(
            f"{path} holds no model: there is no config.json in it",
            "Give a model folder, or a run that has been trained to its end or to a checkpoint.",
        )
    shown = str(path)
    if len(shown) > LONGEST_NAME:
        # A text where the model should stand; as a path it would be too long for the file system.
        raise CheckpointError(
            f"there is no folder {shown[:LONGEST_NAME]!r}…", "A model's folder goes before the text: MODEL TEXT."
        )
    raise CheckpointError(f"there is no folder {path}", "Train a model first (`sublayer train RECIPE --out FOLDER`).")


@cache
def _warn_unfinished(folder: Path) -> None:
    """Say, once for each folder, of which step its model is."""
    try:
        step = f"{read_object(folder / STEP)['step']:,}"
    except (OSError, ValueError, KeyError, TypeError):
        step = "its last save"
    if folder.name == UNFINISHED:
        said, where = "from the checkpoint of step %s; the training has not finished", folder.parent
    else:
        said, where = "the model of step %s; its training has gone on since, and has not finished", folder
    logging.getLogger("sublayer").warning(f"%s: {said}", where, step)


STEP = "step.json"
"""In the model folder of a run that has not ended: {"step": of the model}."""


def read_description(folder: Path) -> dict[str, Any]:
    """Return what a model folder's `config.json` says.

    Raises:
        CheckpointError: it is missing, damaged, or of another format.
    """
    path = folder / "config.json"
    description = read_object(path, remedy="Copy the folder again, whole.")
    if description.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is not of sublayer's format {FORMAT}", "Update sublayer, or import the checkpoint first."
        )
    return description
