"""The log of a run: one JSON object a line in metrics.jsonl, and the same to TensorBoard where asked for.

Two kinds of lines, told apart by their keys: {"step", "epoch", "loss", "learning_rate", "gradient_norm", "tokens",
"seconds", "place"} after every optimizer step, and {"step", "seconds", "valid/loss", ...} after every validation, with
whatever else the task measures ("valid/bleu", "valid/accuracy", ...; `sublayer.config.MEASURES`).
`seconds` are of training: validation and saving are not counted. `place` is the part of the run that is over, up to 1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from os import SEEK_END
from pathlib import Path
from typing import Any

from sublayer.errors import ConfigError
from sublayer.files import storage_error


class RunningMean:
    """An exponential mean that is right from its first value on: batches differ, and one loss says little.

    memory: weight of what came before.
    """

    def __init__(self, memory: float = 0.95) -> None:
        self._memory, self._total, self._weight = memory, 0.0, 0.0

    def add(self, value: float, weight: float = 1.0) -> float:
        """The mean with one more value; weight: as that of so many."""
        self._total = self._memory * self._total + weight * value
        self._weight = self._memory * self._weight + weight
        return self._total / self._weight


class MetricsLog:
    """Appends to a file; a resumed run first cuts off what came after its checkpoint."""

    def __init__(self, path: Path, *, kept_bytes: int = 0, tensorboard: bool = False) -> None:
        self.path = path
        self._board = _board(path.parent / "tensorboard") if tensorboard else None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
            # Never longer: a file that has lost its end would be filled up with zeros.
            self._file.truncate(min(kept_bytes, self._file.seek(0, SEEK_END)))
            self._file.seek(0, SEEK_END)
        except OSError as error:
            raise storage_error(path, error) from error

    @property
    def bytes(self) -> int:
        """Length of the file so far."""
        self._file.flush()
        return self._file.tell()

    def write(self, values: Mapping[str, float | int]) -> None:
        """One line."""
        try:
            # JSON has no NaN: what is not finite is left out.
            finite = {name: value for name, value in values.items() if math.isfinite(value)}
            self._file.write(json.dumps(finite, allow_nan=False).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise storage_error(self.path, error, "go on with --resume") from error
        if self._board is not None:
            step = int(values["step"])
            for name, value in values.items():
                if name not in ("step", "epoch"):
                    self._board.add_scalar(name if "/" in name else f"train/{name}", value, step)

    def close(self) -> None:
        # Every line has been flushed; only one that the disk refused, and that was reported then, can be left.
        with suppress(OSError):
            self._file.close()
        if self._board is not None:
            self._board.close()


class NoLog(MetricsLog):
    """Of a process that writes none: another one does."""

    def __init__(self) -> None:
        pass

    @property
    def bytes(self) -> int:
        return 0

    def write(self, values: Mapping[str, float | int]) -> None:
        pass

    def close(self) -> None:
        pass


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; a last line that was cut short is left out."""
    return _lines(path.read_bytes())


def _lines(written: bytes) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for line in written.split(b"\n"):
        if line:
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
    return lines


def require_tensorboard() -> None:
    """
    Raises:
        ConfigError: the extra is not installed.
    """
    if find_spec("tensorboard") is None:
        raise ConfigError(
            "training.tensorboard = true needs the package tensorboard", "Run pip install 'sublayer[logging]'."
        )


def _board(folder: Path) -> Any:
    require_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(folder))
    return writer


def seconds_after(path: Path, kept_bytes: int) -> dict[int, float]:
    """Seconds of training after each step that stands beyond the first `kept_bytes` of a metrics.jsonl."""
    if not path.is_file():
        return {}
    return {line["step"]: line["seconds"] for line in _lines(path.read_bytes()[kept_bytes:]) if "loss" in line}
