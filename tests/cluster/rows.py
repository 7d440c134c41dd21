"""Data sets to put through a small translator, and what stands in an output."""

from __future__ import annotations

import atexit
import gzip
import json
import random
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet


def _copied() -> Path:
    """The fixtures' models, where a loaded translator may put its `engine.bin` beside them."""
    folder = Path(tempfile.mkdtemp(prefix="sublayer-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(shutil.copytree(Path(__file__).resolve().parents[1] / "fixtures" / "models", folder / "models"))


FIXTURES = _copied()
TRANSLATOR = FIXTURES / "encoder-decoder"
WORDS = ("ba", "co", "di", "fu", "ge", "ha", "ki", "lo", "mu", "ne", "pa", "ri")
LONG = "ba " * 100

Row = dict[str, Any]


def rows(count: int, first: int = 0, seed: int = 0) -> list[Row]:
    """Rows with a number of their own, and a column that no model reads."""
    draw = random.Random(seed + first)
    texts = (" ".join(draw.choices(WORDS, k=draw.randint(2, 4))) for _ in range(count))
    return [{"id": first + number, "text": text, "tags": [number, 2]} for number, text in enumerate(texts)]


def write(path: Path, some: Sequence[Mapping[str, Any]], group: int = 70) -> Path:
    """The rows in a file, as its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(list(some)), path, row_group_size=group)
        return path
    text = "".join(f"{json.dumps(row)}\n" for row in some).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def written(out: Path) -> list[Row]:
    """All rows of an output, in the order of its files."""
    found: list[Row] = []
    for path in sorted(out.glob("part-*")):
        if path.suffix == ".parquet":
            found += parquet.read_table(path).to_pylist()
        else:
            found += [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return found
