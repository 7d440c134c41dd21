"""The engine's C++ for Arm, cross-compiled and emulated: the driver that the sanitizers watch.

With dot products and without. QEMU shows that the kernels compute what they should. It shows neither their speed nor
what two threads of a real processor see of each other's memory.
"""

from __future__ import annotations

import importlib.util
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from sublayer.fast import engine

CPP = Path(engine.__file__).parent / "cpp"
DRIVER = CPP / "tests/drive.cpp"
EMULATOR = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
ROUNDS = "20"
ZIG = (sys.executable, "-P", "-m", "ziglang", "c++", "-target", "aarch64-linux-musl")
GCC = ("aarch64-linux-gnu-g++",)

# The packages are Debian's. GCC is what an installation on Arm uses, ziglang where there is none.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(EMULATOR is None, reason="needs qemu-aarch64 (apt install qemu-user)"),
]
without_zig = pytest.mark.skipif(not importlib.util.find_spec("ziglang"), reason="needs pip install ziglang")
without_gcc = pytest.mark.skipif(not shutil.which(GCC[0]), reason="needs apt install g++-aarch64-linux-gnu")
BUILD = runpy.run_path(str(CPP / "build.py"))


def said_by(*command: str | Path) -> list[str]:
    """What the driver says when nothing disagrees: the instruction sets, and a sum of what was packed."""
    done = subprocess.run([*command, ROUNDS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    found = re.fullmatch(r"(.*); packed (\w+)\n", done.stdout)
    assert found, done.stdout
    return [*found.groups()]


@cache
def packed_here(folder: Path) -> str:
    # Not optimized, which would take the compiler longer than all the rest.
    return said_by(BUILD["build_program"](DRIVER, folder / "drive", sanitize=True))[1]


@pytest.mark.parametrize(
    "compiler", [pytest.param(GCC, marks=without_gcc, id="gcc"), pytest.param(ZIG, marks=without_zig, id="zig")]
)
def test_the_engine_runs_on_arm_and_packs_as_here(
    compiler: Sequence[str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # Linked statically, so that nothing of another system is needed.
    driver = BUILD["build_program"](DRIVER, tmp_path / "drive", [*compiler, "-static"])
    packed = packed_here(tmp_path_factory.getbasetemp())
    assert EMULATOR
    assert said_by(EMULATOR, "-cpu", "max", driver) == ["neon plain", packed]
    assert said_by(EMULATOR, "-cpu", "cortex-a53", driver) == ["plain", packed]
