"""For which kind of processor the engine is compiled."""

from __future__ import annotations

import platform
import runpy
from pathlib import Path

import pytest

from sublayer.fast import engine

BUILD = runpy.run_path(str(Path(engine.__file__).parent / "cpp/build.py"))


@pytest.mark.parametrize(
    ("compiler", "expected"),
    [
        ("zig c++ -target aarch64-linux-gnu.2.17", "aarch64"),
        ("clang++ -target arm64-apple-macos11", "aarch64"),
        ("/usr/bin/aarch64-linux-gnu-g++ -static", "aarch64"),
        ("x86_64-linux-gnu-g++", "x86_64"),
        ("g++", "riscv64"),
        ("clang++-19", "riscv64"),
    ],
)
def test_a_compiler_for_another_processor_is_told_its_instruction_sets(
    compiler: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert BUILD["target"](compiler.split()) == expected
