"""Zip files: one of the files inside is changed, or how the zip keeps them."""

from __future__ import annotations

import random
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

STRANGE = (
    *("../outside", "/tmp/outside", "a/../../outside", "model/../../outside", "..\\outside", "a\0b", "x" * 300, "a//b"),
    *("model", "model/model.bin/x", "metadata.json/x", "model/../metadata.json", "./metadata.json", "é\u202e"),
)
"""Names that files in a package may have: beside its root and inside of it."""


def change(path: Path, kind: str, draw: random.Random, inside: Callable[[Path, str, random.Random], str]) -> str:
    """Change one of the files inside by `inside`, legally; or the zip's order and compression."""
    held = read(path)
    if kind in ("order", "layout"):
        names = list(held)
        draw.shuffle(names)
        write(path, {name: held[name] for name in names}, draw.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
        return kind
    kind, name = "", ""
    while kind == "" or name.endswith(".md"):
        name = draw.choice(list(held))
        held[name], kind = _changed(name, held[name], lambda file: inside(file, draw.choice(KINDS), draw))
    write(path, held)
    return kind


KINDS = ("value", "drop", "weight")


def rough(path: Path, draw: random.Random, inside: Callable[[Path], Any]) -> None:
    """Change one of the files inside by `inside`, take one out, or add what should not be there."""
    held = read(path)
    root = next(iter(held)).partition("/")[0]
    match draw.randrange(5):
        case 0:
            name = draw.choice(STRANGE)
            held[draw.choice([name, f"{root}/{name}"])] = b"{}"
        case 1:
            del held[draw.choice(list(held))]
        case 2:
            held[f"{root}/{draw.choice(['metadata.json', 'model/model.bin', 'more'])}"] = b"\0" * 2**27
        case _:
            name = draw.choice(list(held))
            held[name], _ = _changed(name, held[name], inside)
    write(path, held)


def read(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def write(path: Path, held: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, value in held.items():
            file.writestr(name, value)


def _changed(name: str, held: bytes, change: Callable[[Path], Any]) -> tuple[bytes, Any]:
    with tempfile.TemporaryDirectory() as work:
        file = Path(work) / Path(name).name
        file.write_bytes(held)
        made = change(file)
        return file.read_bytes(), made
