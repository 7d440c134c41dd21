"""Every benchmark still runs: on a tiny shape, one round, in a process of its own, with its table and its JSON.

The benchmarks are found by their last line, `main()`, so a new one without `--quick` fails here.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[1] / "inspection"))

import machine
from browsing import require_browser

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
TABLE = re.compile(r"^\| .+ \|\n\|---\|(---:\|)+\n\| .+ \|$", re.MULTILINE)


def calls(path: Path) -> str | None:
    """What a file calls when it is run as a program; None if it is only imported."""
    last = ast.parse(path.read_text(encoding="utf-8")).body[-1]
    if not isinstance(last, ast.If) or ast.unparse(last.test) != "__name__ == '__main__'":
        return None
    return "\n".join(map(ast.unparse, last.body))


CALLS = {path.stem: called for path in sorted(BENCHMARKS.glob("*.py")) if (called := calls(path)) is not None}
PROGRAMS = [name for name, called in CALLS.items() if called == "main()"]
NEED_A_BROWSER = {"page_opening"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tiny models of all benchmarks are kept: made here, whatever the user's own cache holds."""
    return tmp_path_factory.mktemp("cache")


def run(name: str, folder: Path, cache: Path, *options: str) -> tuple[str, list[tuple[Path, dict[str, Any]]]]:
    """What a benchmark prints, and the results that it writes into `folder`."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick", "--out", str(folder), *options],
        cwd=cache,
        env={**os.environ, "SUBLAYER_CACHE": str(cache), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    written = [(path, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))]
    return done.stdout, written


def test_a_program_is_a_benchmark_or_a_worker() -> None:
    assert set(CALLS.values()) == {"main()", "serve(start)"}
    assert len(PROGRAMS) >= 10


def test_what_make_bench_runs_is_there() -> None:
    [named] = re.findall(r"^bench: .*\n\t@for name in (.+); do", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(named.split()) <= set(PROGRAMS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_quick(name: str, tmp_path: Path, cache: Path) -> None:
    if name in NEED_A_BROWSER:
        require_browser()
    printed, [(path, result)] = run(name, tmp_path / "results", cache)
    assert TABLE.search(printed), printed
    assert str(path) in printed
    found = result["machine"]
    assert path.stem.endswith(f"-{found['kind']}")
    assert found["cpu"] == machine.cpu_model() != ""
    assert found["kind"] == machine.kind()
    assert found["cpu_capability"]
    assert found["cpu"] in printed
    assert found["commit"].rstrip("+") == machine.commit().rstrip("+")
    assert (datetime.now().astimezone() - datetime.fromisoformat(found["date"])).total_seconds() < 3600
    assert result["settings"]["quick"] is True
    assert result.keys() - {"machine", "settings"}, "the results themselves are missing"


def test_a_simulated_processor_is_named_and_stands_beside_the_real_one(tmp_path: Path, cache: Path) -> None:
    _, [(_, real)] = run("minilm_parity", tmp_path, cache)
    # The tests themselves may be held to AVX2; then the second result stands in the first one's place.
    assert (real["machine"]["kind"], real["machine"]["simulated"]) == (machine.kind(), machine.simulated())
    printed, written = run("minilm_parity", tmp_path, cache, "--simulate", "avx2")
    kinds = {result["machine"]["kind"]: result["machine"] for _, result in written}
    assert kinds.keys() == {machine.kind(), "avx2-simulated"}
    assert kinds["avx2-simulated"]["cpu_capability"] == "AVX2"
    assert kinds["avx2-simulated"]["simulated"] == "avx2"
    assert "held to avx2" in printed
