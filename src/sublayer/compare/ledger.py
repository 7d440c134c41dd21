"""Figures as they are measured, kept as JSON: what is there is not measured again, and a report needs nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sublayer.errors import ConfigError, DataError
from sublayer.fast.facts import processor_name
from sublayer.files import write_json
from sublayer.untrusted import read_object


class Ledger:
    """The figures of one part, by the name of what was measured; written after every entry.

    Args:
        path: the JSON file, which may be there already. settings: what was asked for, so that figures which were
            measured under other settings are never mixed with these.

    Raises:
        ConfigError: the figures that are there were measured under other settings.
        DataError: what is there is no such file.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self.machine = machine()
        self.entries: dict[str, dict[str, Any]] = {}
        if path.is_file():
            kept = _read(path)
            if kept["settings"] != self.settings:
                raise ConfigError(
                    f"{path} was measured under other settings",
                    "Choose another --out, or measure everything anew with --overwrite.",
                )
            self.entries, self.machine = kept["entries"], kept["machine"]

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def __getitem__(self, name: str) -> dict[str, Any]:
        return self.entries[name]

    def __setitem__(self, name: str, figures: Mapping[str, Any]) -> None:
        self.entries[name] = json.loads(json.dumps(figures))
        write_json(self.path, {"settings": self.settings, "machine": self.machine, "entries": self.entries})


def read_ledger(path: Path) -> dict[str, Any] | None:
    """Settings, machine and entries of a ledger; None where there is none."""
    return _read(path) if path.is_file() else None


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _read(path: Path) -> dict[str, Any]:
    remedy = "Remove it, and measure again."
    data = read_object(path, DataError, remedy)
    if not {"settings", "machine", "entries"} <= data.keys():
        raise DataError(f"{path} holds no figures of sublayer compare", remedy)
    return data
