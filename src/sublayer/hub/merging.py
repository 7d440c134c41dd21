"""Adapters and their base become one model folder."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from sublayer.errors import CheckpointError
from sublayer.files import replacing
from sublayer.hub.destination import require_apart, with_bases
from sublayer.hub.folder import ModelBundle, ModelCard, find, read, write

BESIDE = ("test.jsonl",)
"""What may stand beside a model and goes with it: what was held out of its training."""


def merge(model: Path, out: Path) -> ModelBundle:
    """Write the adapters in `model` and the base that they name as one plain model folder at `out`.

    Raises:
        CheckpointError: there are no adapters, or they do not fit their base.
    """
    folder = find(model)
    found = read(folder)
    if found.adapted is None:
        raise CheckpointError(f"{model} holds no adapters: there is nothing to merge", "It is a whole model already.")
    c, base = found.adapted.c, found.adapted.base
    require_apart(out, with_bases(folder))
    card = _text(folder / "README.md").rstrip()
    card += f"\n\nLow-rank adapters (rank {c.rank}) were merged into the weights of {Path(base.path).name}.\n"
    merged = replace(found, adapted=None)
    write(out, merged, ModelCard(_text(folder / "recipe.toml"), card))
    for name in BESIDE:
        if (folder / name).is_file():
            with replacing(out / name) as aside:
                shutil.copyfile(folder / name, aside)
    return merged


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
