"""The engine under AddressSanitizer and UndefinedBehaviorSanitizer: odd sizes, every operation and instruction set."""

from __future__ import annotations

import os
import runpy
import subprocess
from pathlib import Path

import pytest

from sublayer.fast import engine

CPP = Path(engine.__file__).parent / "cpp"


@pytest.mark.slow
def test_nothing_is_read_or_written_where_it_should_not_be(tmp_path: Path) -> None:
    build_program = runpy.run_path(str(CPP / "build.py"))["build_program"]
    program = build_program(CPP / "tests/drive.cpp", tmp_path / "drive", sanitize=True)
    done = subprocess.run(
        [program, "30"], env={**os.environ, "UBSAN_OPTIONS": "print_stacktrace=1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
