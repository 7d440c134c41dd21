"""Build the engine: one shared library, in which the kernels are compiled once for each instruction set.

Only the standard library and a C++ compiler are needed: that of $CXX, the system's, or the package `ziglang`.

    python build.py libengine.so
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
COMMON = ("engine.cpp", "isa.cpp", "matrix.cpp", "pool.cpp")
KERNELS = "kernels.cpp"
FLAGS = (
    "-std=c++17", "-fPIC", "-pthread", "-Wall", "-Wextra", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti",
    # A product and a sum are fused where the code says so, so that a number is the same in every tile.
    "-ffp-contract=off",
    "-fno-math-errno", "-fno-trapping-math",
)  # fmt: skip
# Not optimized, as that takes the compiler a minute.
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g", "-O0")

_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512")
INSTRUCTION_SETS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "x86_64": {
        "plain": (),
        "avx2": _AVX2,
        "avxvnni": (*_AVX2, "-mavxvnni"),
        "avx512": _AVX512,
        "avx512vnni": (*_AVX512, "-mavx512vnni"),
    },
    "aarch64": {"plain": (), "neon": ("-mcpu=generic+dotprod",)},
}
"""For each kind of processor, by instruction set, what the compiler is told."""


def build(out: Path, compiler: Sequence[str] | None = None, sanitize: bool = False) -> Path:
    """Compile the engine to the shared library `out`, and return its path.

    Args:
        compiler: the command to compile with, and options such as a target; found if it is None. sanitize: with
            AddressSanitizer and UndefinedBehaviorSanitizer.

    Raises:
        RuntimeError: there is no compiler, or it fails; with the last of what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        objects = compiled(Path(folder), compiler, sanitize)
        _run([*(compiler or find_compiler()), "-shared", "-pthread", *_kind(sanitize), *objects, "-o", str(out)])
    return out


def build_program(source: Path, out: Path, compiler: Sequence[str] | None = None, sanitize: bool = False) -> Path:
    """Compile a program together with the engine to `out`, and return its path; otherwise as `build`."""
    with tempfile.TemporaryDirectory() as folder:
        objects = compiled(Path(folder), compiler, sanitize, [source])
        _run([*(compiler or find_compiler()), "-pthread", *_kind(sanitize), *objects, "-lm", "-o", str(out)])
    return out


def compiled(folder: Path, compiler: Sequence[str] | None, sanitize: bool, more: Sequence[Path] = ()) -> list[str]:
    """Compile the engine's files, and `more`, into `folder`, and return the objects."""
    # A warning is an error where we would see it; a compiler of tomorrow must not stop an installation.
    strict = ("-Werror",) if os.environ.get("CI") or sanitize else ()
    compiler = compiler or find_compiler()
    command = [*compiler, *FLAGS, *strict, *_kind(sanitize)]
    sources = [(HERE / name, Path(name).stem, ()) for name in COMMON]
    sources += [(path, path.stem, ()) for path in more]
    sources += [
        (HERE / KERNELS, f"kernels-{name}", (*flags, f"-DISA={name}"))
        for name, flags in INSTRUCTION_SETS.get(target(compiler), {"plain": ()}).items()
    ]
    jobs = [[*command, *flags, "-c", str(source), "-o", str(folder / f"{name}.o")] for source, name, flags in sources]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_run, jobs))
    return [job[-1] for job in jobs]


def target(compiler: Sequence[str]) -> str:
    """The kind of processor that the command compiles for: by its target, or the name of a GCC that cross-compiles."""
    named = [after for option, after in itertools.pairwise(compiler) if option == "-target"]
    named += [name for name in [Path(compiler[0]).name] if name.endswith(("-linux-gnu-g++", "-linux-musl-g++"))]
    kind = (named[0] if named else platform.machine()).split("-")[0].lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(kind, kind)


def system_compiler() -> list[str] | None:
    """The command of the C++ compiler that $CXX names, or that the system has; None if there is none."""
    if os.environ.get("CXX"):
        return shlex.split(os.environ["CXX"])
    return next(([name] for name in ("c++", "g++", "clang++") if shutil.which(name)), None)


def find_compiler() -> list[str]:
    """The command of a C++ compiler.

    Raises:
        RuntimeError: there is none.
    """
    found = system_compiler()
    if found is None and importlib.util.find_spec("ziglang"):
        found = [sys.executable, "-P", "-m", "ziglang", "c++"]
    if found is None:
        raise RuntimeError("there is no C++ compiler: set CXX, install one, or pip install ziglang")
    return found


def _kind(sanitize: bool) -> Sequence[str]:
    return SANITIZERS if sanitize else ("-O3",)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join(done.stderr.strip().splitlines()[-20:])
        raise RuntimeError(f"the compiler failed: {shlex.join(command)}\n{said}")


if __name__ == "__main__":
    sys.stdout.write(f"{build(Path(sys.argv[1]))}\n")
