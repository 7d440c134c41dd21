"""The engine under AddressSanitizer and UndefinedBehaviorSanitizer: odd sizes, every operation and instruction set."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from sublayer.fast import engine

CPP = Path(engine.__file__).parent / "cpp"


def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_engine", CPP / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_nothing_is_read_or_written_where_it_should_not_be(tmp_path: Path) -> None:
    program = builder().build_program(CPP / "tests/drive.cpp", tmp_path / "drive", sanitize=True)
    done = subprocess.run(
        [program, "30"], env={**os.environ, "UBSAN_OPTIONS": "print_stacktrace=1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
