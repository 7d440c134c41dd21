"""Files that nobody would write: every reader reads them or refuses them in a line, soon, and in little memory.

Valid files (`valid.make`) are changed with a knowledge of what they are: half of them `rough`ly, so that most must be
refused, half of them to something as `legal` as before, so that most must be accepted, and rightly. A short run by
default; `FUZZ_EXAMPLES=20000` (`make fuzz`) makes a long one of it, spread over the readers. `FUZZ_SEED` gives other
inputs, `-k` picks a reader, and `FUZZ_LOG=FILE` writes a line for each input and goes on where one is wrong, so that
several short runs come to a long one.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import random
import re
import select
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import legal
import pytest
import reading
import rough
import valid
from rough import Change

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
SECONDS = 5.0
"""Of processor time, for one input."""
PATIENCE = 120.0
"""Seconds by the clock after which a reader hangs, however busy the machine is."""
SHARES = {
    **{"config": 5, "checkpoint": 3, "bert tokenizer": 1, "gpt2 tokenizer": 1, "tokenizer": 3, "pieces unigram": 1},
    **{"pieces bpe": 1, "gguf": 4, "own": 2, "adapted": 1, "sentences": 1, "peft": 2, "recipe": 3, "set": 3},
    **{"rows": 2, "state": 1, "engine": 2, "ctranslate2": 4, "argos": 3, "keys": 1},
}
"""How many of the inputs each kind gets, of 44."""
SEALED = re.compile(r"state/.*\.safetensors")
"""Files whose sums stand beside them, so that any change is damage."""


def test_all_readers_are_tried() -> None:
    assert {kind.split(" ")[0] for kind in SHARES} == set(reading.READERS)


# --- the process that reads --------------------------------------------------------------------------------------


class Worker:
    """Started anew whenever it has been killed."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def ask(self, reader: str, folder: Path) -> dict[str, Any]:
        if self.process is None or self.process.poll() is not None:
            paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), *sys.path]
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("reading.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TOKENIZERS_PARALLELISM": "false"},
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"reader": reader, "folder": str(folder)}) + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            self.stop()
            return {"outcome": "died" if ready else "hung", "seconds": PATIENCE, "error": ""}
        return json.loads(line)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            with suppress(OSError):  # what it was never told
                self.process.communicate()
            self.process = None


WORKER = Worker()
atexit.register(WORKER.stop)


@cache
def originals() -> dict[str, Path]:
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return valid.make(root)


# --- the law -----------------------------------------------------------------------------------------------------


def aside(name: str) -> tuple[Path, list[Path]]:
    """A copy of a kind's files, to be removed with the folder it is in, and those that may be changed."""
    target = Path(tempfile.mkdtemp(prefix="fuzzed-")) / originals()[name].name
    shutil.copytree(originals()[name], target)
    return target, sorted(path for path in target.rglob("*") if path.is_file() and path.suffix != ".md")


def tried(kind: str, number: str, kept: list[Change] | None = None) -> None:
    """Change one file of a kind, read it, and see that it was read or refused, and what was read.

    number: which input: half of them are changed roughly, half legally. kept: the changes, where they were thought of.
    """
    draw = random.Random(f"{kind} {number}")
    name = draw.choice([name for name in originals() if name == kind or name.startswith(f"{kind} ")])
    target, files = aside(name)
    file, how = draw.choice(files), "rough"
    before = file.read_bytes()
    try:
        if kept is not None:
            rough.change(file, kept)
        elif draw.random() < 0.5:
            rough.change(file, rough.drawn(draw))
        else:
            how = legal.change(file, draw.choice(legal.KINDS), draw)
        after = file.read_bytes()
        how = how if after != before else "nothing"
        answer = WORKER.ask(name, target)
    finally:
        shutil.rmtree(target.parent, ignore_errors=True)
    wrong = judged(name, file.name, how, answer)
    outcome = "slow" if answer["seconds"] > SECONDS else answer["outcome"]
    log = os.environ.get("FUZZ_LOG")
    if log:
        told = {key: value for key, value in answer.items() if key != "seen"}
        row = {"kind": kind, "number": number, "name": name, "file": file.name, "how": how, "wrong": wrong}
        row["input"] = hashlib.sha256(f"{name} {file.name} ".encode() + after).hexdigest()[:16]
        with Path(log).open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(row | told | {"outcome": outcome}) + "\n")
        return
    assert not wrong, f"tried({kind!r}, {number!r}): {name}, {file.name}, {how}: {wrong}"


def judged(name: str, file: str, how: str, answer: dict[str, Any]) -> str:
    """What is wrong with the answer, or nothing."""
    if answer["outcome"] not in ("read", "refused"):
        return f"{answer['outcome']} in {answer['seconds']:.1f} s\n{answer['error']}"
    if answer["seconds"] > SECONDS:
        return f"{answer['seconds']:.1f} s"
    if answer["memory"] > reading.MEMORY:
        return f"{answer['memory']:,} bytes"
    before, after = first_seen(name), answer["seen"]
    changed = {key for key in {*before, *after} if before.get(key) != after.get(key)}
    if SEALED.fullmatch(f"{name}/{file}") and how != "nothing":
        return "what is not as it was written was taken" if answer["outcome"] == "read" else ""
    if how in legal.HARMLESS and (answer["outcome"] != "read" or changed):
        return f"another {how} means nothing, but: {answer['outcome']} {answer['error']} {sorted(changed)}"
    if how == "weight" and answer["outcome"] == "read" and "tree" in after:
        if not changed or not all(key.startswith("weights.") for key in changed):
            return f"another weight changed {sorted(changed)}"
        if len({after[key] for key in changed}) != 1:
            return f"one weight changed several: {sorted(changed)}"
    return ""


@cache
def first_seen(name: str) -> dict[str, str]:
    """What is read where nothing was changed."""
    target, _ = aside(name)
    answer = WORKER.ask(name, target)
    shutil.rmtree(target.parent, ignore_errors=True)
    assert answer["outcome"] == "read", f"{name}: {answer}"
    return answer["seen"]


@pytest.mark.parametrize("kind", SHARES)
def test_what_is_valid_is_read(kind: str) -> None:
    """Otherwise all would be refused, and nothing would be tried."""
    for name in originals():
        if name.startswith(kind):
            assert first_seen(name)


KEPT: tuple[list[Change], ...] = (
    [("bytes", 0.004, 0.0, 5, 62)],  # a length of 2 ** 62 where the sizes stand
    [("raw", 0.0, 0.0, 4, 0)],  # nested too deep
)


@pytest.mark.parametrize("kind", SHARES)
def test_every_input_is_read_or_refused(kind: str) -> None:
    for number, made in enumerate(KEPT):
        tried(kind, f"kept {number}", made)
    for number in range(max(2, EXAMPLES * SHARES[kind] // sum(SHARES.values()))):
        tried(kind, f"{SEED} {number}")
