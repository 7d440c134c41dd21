"""Files that nobody would write: every reader reads them or refuses them in a line, soon, and in little memory.

Valid files (`reading.make`) are changed with a knowledge of what they are: values of JSON and TOML are exchanged for
others, bytes of binary files turned, cut off, repeated, lengths in them raised. A short run by default;
`FUZZ_EXAMPLES=20000` (`make fuzz`) makes a long one of it, spread over the readers.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import reading
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
SECONDS = 5.0
"""Of processor time, for one input."""
PATIENCE = 120.0
"""Seconds by the clock after which a reader hangs, however busy the machine is."""
SHARES = {
    **{"config": 5, "checkpoint": 3, "bert tokenizer": 1, "gpt2 tokenizer": 1, "tokenizer": 3, "pieces unigram": 1},
    **{"pieces bpe": 1, "gguf": 4, "own": 2, "adapted": 1, "sentences": 1, "peft": 2, "recipe": 3, "set": 3},
    **{"rows": 2, "state": 1},
}
"""How many of the inputs each kind gets, of 34."""
COUNTED: Counter[tuple[str, str]] = Counter()


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
            self.process.wait()
            self.process = None


WORKER = Worker()
atexit.register(WORKER.stop)


@cache
def originals() -> dict[str, Path]:
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return reading.make(root)


# --- changes -----------------------------------------------------------------------------------------------------

DEEP: Any = [[]]
for _ in range(200):
    DEEP = [DEEP]
NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 10**6, 2**31, 2**63, 2**64, 10**25, 0.0, 0.5, 1.0, -1.0, 1e-300, 1e308),
    *("", "a", "0", "1", "AAAA", "{{7*7}}", "no", "../../etc", "/dev/zero", "\0", "\x1b[2J", "é" * 300, "<s>", "$x^"),
    *([], {}, [1], ["a"], [None], [[]], {"a": 1}, {"0": "a"}, {"content": 5}, [0] * 1000, DEEP, {"type": "none"}),
)
RAW = ("9" * 5000, "NaN", "-Infinity", "1e999", "[" * 5000, '"\\ud800"', "{,}", "'", "1 2", '{"a":1,"a":2}', "")
MARK = "@raw@"

places = st.floats(0, 1, exclude_max=True)
kinds = st.sampled_from(("exchange", "exchange", "exchange", "remove", "add", "raw", "bytes", "bytes"))
changes = st.lists(
    st.tuples(kinds, places, places, st.integers(0, 10_000), st.integers(0, 10_000)), min_size=1, max_size=4
)


def inside(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values, of long lists only the first."""
    pairs = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [path] * bool(path) + [below for key, one in pairs[:60] for below in inside(one, (*path, key))]


def changed_value(whole: Any, kind: str, place: float, number: int, other: int) -> Any:
    paths = inside(whole)
    if not paths:
        return NASTY[number % len(NASTY)]
    *way, last = paths[int(place * len(paths))]
    table = whole
    for key in way:
        table = table[key]
    if kind == "remove":
        del table[last]
    elif kind == "add" and isinstance(table, dict):
        table[f"{last}_{other % 7}" if other % 2 else NEW[other % len(NEW)]] = NASTY[number % len(NASTY)]
    elif kind == "raw":
        table[last] = f"{MARK}{number % len(RAW)}{MARK}"
    else:
        table[last] = NASTY[number % len(NASTY)]
    return whole


NEW = (
    *("rope_scaling", "rope_parameters", "sliding_window", "layer_types", "id2label", "num_labels", "architectures"),
    *("head_dim", "quantization_config", "tie_word_embeddings", "bad_words_ids", "added_tokens_decoder", "others"),
    *("adapter", "base", "imported", "start", "task", "use_rslora", "normalizer", "post_processor", "is_decoder"),
)


def changed_bytes(held: bytes, place: float, other: float, number: int, more: int) -> bytes:
    at, to = int(place * len(held)), int(other * len(held))
    if place < 0.3:  # headers are where the sizes are
        at = int(place * min(len(held), 2000))
    match number % 8:
        case 0:
            return held[:at]
        case 1:
            return held[:at] + bytes([more % 256]) + held[at + 1 :]
        case 2:
            return held[:at] + (more % 3 + 254).to_bytes(2, "little")[:1] * 8 + held[at + 8 :]
        case 3:
            return held[:at] + held[to : to + more % 64] + held[at:]
        case 4:
            return held[:at] + held[at + more % 64 :]
        case 5:
            return held[:at] + (2 ** (more % 64)).to_bytes(8, "little") + held[at + 8 :]
        case 6:
            return held[:at] + b"\x00\x00\xc0\x7f" + held[at + 4 :]
        case _:
            return held + held[: more % 1000]


def change(path: Path, made: list[tuple[str, float, float, int, int]]) -> None:
    held = path.read_bytes()
    for kind, place, other, number, more in made:
        if kind != "bytes" and path.suffix == ".json":
            try:
                text = json.dumps(changed_value(json.loads(held), kind, place, number, more))
            except (ValueError, RecursionError):
                continue
            for place_, raw in enumerate(RAW):
                text = text.replace(f'"{MARK}{place_}{MARK}"', raw)
            held = text.encode("utf-8", "surrogatepass")
        elif kind != "bytes" and path.suffix in (".toml", ".txt", ".jsonl", ".tsv", ".conll", ".jinja"):
            held = changed_text(held, kind, place, number)
        else:
            held = changed_bytes(held, place, other, number, more)
    path.write_bytes(held)


def changed_text(held: bytes, kind: str, place: float, number: int) -> bytes:
    """A line is removed, repeated, or what stands behind its last sign of equality or tab is exchanged."""
    lines = held.split(b"\n")
    at = int(place * len(lines))
    if kind == "remove":
        del lines[at]
    elif kind == "add":
        lines.insert(at, lines[number % len(lines)])
    else:
        value = RAW[number % len(RAW)] if kind == "raw" else json.dumps(NASTY[number % len(NASTY)])
        begin = max(lines[at].rfind(b"="), lines[at].rfind(b"\t"), lines[at].rfind(b":")) + 1
        lines[at] = lines[at][:begin] + value.encode()
    return b"\n".join(lines)


# --- the law -----------------------------------------------------------------------------------------------------


def tried(kind: str, which: float, made: list[tuple[str, float, float, int, int]]) -> None:
    """Change one file of a kind, read it, and see that it was read or refused."""
    names = [name for name in originals() if name.split(" ")[0] == kind] if kind == "config" else [kind]
    name = names[int(which * len(names))]
    folder = Path(tempfile.mkdtemp(prefix="fuzzed-"))
    try:
        target = folder / originals()[name].name
        shutil.copytree(originals()[name], target)
        files = sorted(path for path in target.rglob("*") if path.is_file() and path.suffix != ".md")
        change(files[int(which * len(files)) if kind != "config" else 0], made)
        answer = WORKER.ask(name, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    outcome = "slow" if answer["seconds"] > SECONDS else answer["outcome"]
    COUNTED[kind, outcome] += 1
    log = os.environ.get("FUZZ_LOG")
    if log:
        with Path(log).open("a", encoding="utf-8") as handle:
            handle.write(json.dumps({"kind": kind, "which": which, "made": made, **answer, "outcome": outcome}) + "\n")
        return
    assert outcome in ("read", "refused"), f"{name}: {outcome} in {answer['seconds']:.1f} s\n{answer['error']}"
    assert "\n" not in answer["error"].strip() or outcome == "refused"


@pytest.mark.parametrize("kind", SHARES)
def test_what_is_valid_is_read(kind: str) -> None:
    """Otherwise all would be refused, and nothing would be tried."""
    for name, folder in originals().items():
        if name.startswith(kind):
            aside = Path(tempfile.mkdtemp(prefix="valid-"))
            shutil.copytree(folder, aside / folder.name)
            answer = WORKER.ask(name, aside / folder.name)
            shutil.rmtree(aside)
            assert answer["outcome"] == "read", f"{name}: {answer}"


@pytest.mark.parametrize("kind", SHARES)
def test_every_input_is_read_or_refused(kind: str) -> None:
    count = max(2, EXAMPLES * SHARES[kind] // sum(SHARES.values()))

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
    )
    @given(which=places, made=changes)
    @example(which=0.0, made=[("bytes", 0.004, 0.0, 5, 62)])  # a length of 2 ** 62 where the sizes stand
    @example(which=0.0, made=[("raw", 0.0, 0.0, 4, 0)])  # nested too deep
    def run(which: float, made: list[tuple[str, float, float, int, int]]) -> None:
        tried(kind, which, made)

    run()
