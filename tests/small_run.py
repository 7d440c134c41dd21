"""Runs that take seconds: a made-up language, a very small model, and the real command, in this process or another."""

from __future__ import annotations

import atexit
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch

from sublayer import config
from sublayer.cli import main as cli
from sublayer.config.presets import merge


def tree(vocab_size: int, dropout: float = 0.0, **over: Any) -> config.EncoderDecoder:
    """A model of one narrow layer a side."""
    stack = config.Stack(
        layers=1,
        block=config.Block(
            attention=config.Attention(heads=2),
            feed_forward=config.PositionWise(hidden=32),
            norm_placement="pre",
            dropout=dropout,
        ),
    )
    return config.EncoderDecoder(dim=16, vocab_size=vocab_size, max_length=24, encoder=stack, decoder=stack, **over)


WORDS = ("ba", "co", "di", "fu", "ge", "ha", "ki", "lo", "mu", "ne", "pa", "ri")


def pairs(count: int, longest: int, seed: int = 0) -> list[tuple[str, str]]:
    """Distinct lines of words, and the same words from last to first."""
    draw = random.Random(seed)
    found: dict[str, str] = {}
    while len(found) < count:
        words = draw.choices(WORDS, k=draw.randint(2, longest))
        found[" ".join(words)] = " ".join(reversed(words))
    return list(found.items())


def recipe(**over: Any) -> dict[str, Any]:
    """A whole recipe as plain data, with tables of `over` laid on it."""
    model = tree(300, dropout=0.2).model_dump(mode="json", exclude_none=True, exclude={"vocab_size"})
    base: dict[str, Any] = {
        "name": "small",
        "data": {
            "source": {"type": "lines", "source": "text.src", "target": "text.tgt"},
            "split": {"type": "random", "validation": 6, "test": 8},
            "max_length": 16,
        },
        "tokenizer": {"type": "bpe", "vocab_size": 300},
        "model": model,
        "training": {
            "steps": 24,
            "batches": {"tokens": 120},
            "precision": "float32",
            "optimizer": {"type": "adamw", "learning_rate": 5e-3},
            "schedule": {"type": "linear", "warmup": 5},
            "averaging": {"type": "ema", "decay": 0.9},
            "validate_every": 8,
            "checkpoint_every": 4,
        },
        "decoding": {"beam": 2, "max_extra": 4},
    }
    return merge(base, over)


def write(folder: Path, *, lines: int = 80, longest: int = 4, **over: Any) -> Path:
    """Text and recipe in `folder`; the path of the recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    text = pairs(lines, longest)
    (folder / "text.src").write_text("".join(f"{source}\n" for source, _ in text), encoding="utf-8")
    (folder / "text.tgt").write_text("".join(f"{target}\n" for _, target in text), encoding="utf-8")
    path = folder / "recipe.toml"
    path.write_text(tomli_w.dumps(recipe(**over)), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Outcome:
    """How a command ended: a negative code is the signal that killed it."""

    code: int
    out: str
    err: str

    @property
    def complaints(self) -> list[str]:
        """The lines that the command says as an error."""
        return [line for line in self.err.splitlines() if line.startswith("sublayer: ")]


class Terminal(io.TextIOWrapper):
    """Somebody types."""

    def isatty(self) -> bool:
        return True


def sublayer(*arguments: object, stdin: bytes = b"", terminal: bool = False) -> Outcome:
    """`sublayer ARGUMENTS`, through the command's own entry point, in this process."""
    out, err = io.StringIO(), io.StringIO()
    code: int | str | None = 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["sublayer", *map(str, arguments)])
        patch.setattr(sys, "stdin", (Terminal if terminal else io.TextIOWrapper)(io.BytesIO(stdin), encoding="utf-8"))
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code
    return Outcome(int(code or 0), out.getvalue(), err.getvalue())


class Processes:
    """`sublayer ARGUMENTS` in processes of their own, which may be killed.

    They are forked from one that has everything imported, so that each takes a moment and not seconds.
    """

    def __init__(self, server: subprocess.Popen[bytes]) -> None:
        self._server = server

    def run(
        self,
        *arguments: object,
        kill_after: float | None = None,
        signal_at_step: Mapping[str, int] | None = None,
        fault: Sequence[Any] = (),
        stdin: bytes = b"",
        threads: int = 1,
        patience: float | None = None,
    ) -> Outcome:
        """
        Args:
            kill_after: seconds until SIGKILL. signal_at_step: {"step": …, "signal": …}, sent by the process to itself.
            fault: what goes wrong inside, and its numbers; see `forking.py`.
            patience: seconds after which the process says where it stands, on standard error, and ends with 1.
        """
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        job = {
            "arguments": [str(argument) for argument in arguments],
            "kill_after": kill_after,
            "signal_at_step": dict(signal_at_step) if signal_at_step else None,
            "fault": list(fault),
            "stdin": stdin.hex(),
            "threads": threads,
            "patience": patience,
        }
        self._server.stdin.write(json.dumps(job).encode() + b"\n")
        self._server.stdin.flush()
        return Outcome(**json.loads(self._server.stdout.readline()))


@cache
def processes() -> Processes:
    """The one server of this test session, started when first asked for."""
    return new_processes()


def new_processes() -> Processes:
    """A server of its own, for processes that run beside those of another."""
    script = Path(__file__).with_name("forking.py")
    # Several threads on a core that others want too must not spin while they wait for each other.
    patient = os.environ | {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
    server = subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=patient)
    atexit.register(server.communicate)
    return Processes(server)


@cache
def trained() -> Path:
    """The folder of a run that has ended, with a model that reverses some of its words; not to be written to."""
    folder = Path(tempfile.mkdtemp(prefix="sublayer-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = write(folder, lines=150, training={"steps": 150, "batches": {"tokens": 300}, "validate_every": 150})
    outcome = sublayer("train", file, "--out", folder / "run")
    assert outcome.code == 0, outcome.err
    return folder / "run"


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> list[str]:
    """The names of the tensors that are not equal to the bit; those that only one has are among them."""
    return sorted(
        name
        for name in {*one, *other}
        if name not in one
        or name not in other
        or one[name].dtype != other[name].dtype
        or not torch.equal(one[name], other[name])
    )
