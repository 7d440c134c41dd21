"""Code that torch has compiled and kept for one kind of processor is not run on another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch.compiler import config

from sublayer.fast.compiling import torch_compile
from sublayer.fast.facts import Identity

CHILD = """
import torch
from sublayer.fast.compiling import torch_compile
torch.set_num_threads(1)

def probable(x):
    return (torch.arange(x.shape[1]) - x - 100.0).softmax(-1)

x = torch.arange(3 * 37).reshape(3, 37) % 11
print((torch_compile(probable, dynamic=True)(x) - probable(x)).abs().max().item())
"""


def largest_error(folder: Path, capability: str) -> float:
    """Of a compiled function in a process of its own, which torch holds to these instructions."""
    limited = {"ATEN_CPU_CAPABILITY": capability, "TORCHINDUCTOR_CACHE_DIR": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD], env=os.environ | limited, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.parametrize("strongest_first", [True, False])
def test_kept_for_one_kind_of_processor(tmp_path: Path, strongest_first: bool) -> None:
    """Two processes that keep code in one folder: `torch.compile` alone is off by 1e34, cannot build, or dies."""
    here = torch.backends.cpu.get_cpu_capability()
    kinds = [here.lower(), {"AVX512": "avx2"}.get(here, "default")]
    for capability in kinds if strongest_first else reversed(kinds):
        assert largest_error(tmp_path, capability) < 1e-6


def test_a_tag_of_the_users_own_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def same(function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    monkeypatch.setattr(torch, "compile", same)
    tags: list[str] = []
    for own in ("", "mine"):
        with cast("Any", config).patch(cache_key_tag=own):
            for _ in range(2):
                assert torch_compile(abs) is abs
            tags.append(config.cache_key_tag)
    assert tags == [Identity.here().key, "mine" + Identity.here().key]
