"""Where in a run's folder its model is."""

from __future__ import annotations

from pathlib import Path

from sublayer.untrusted import is_file

UNFINISHED = "unfinished"
"""Folder in a run's folder that holds the model of its last checkpoint, as long as the run has not ended."""


def model_file(path: Path) -> Path | None:
    """The config.json of the model folder `path`, or of the run folder `path`; None where there is none."""
    files = (path / folder / "config.json" for folder in ("", "model", UNFINISHED))
    return next((file for file in files if is_file(file)), None)
