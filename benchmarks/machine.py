"""On what, when and at which commit something was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

SIMULATED: Mapping[str, Mapping[str, str]] = {
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "SUBLAYER_ISA": "avx2",
        "CT2_FORCE_CPU_ISA": "AVX2",
    },
}
"""Kinds of processor, and the variables that hold torch, oneDNN, MKL, the engine and CTranslate2 to the instructions of
that kind. (llama.cpp is built with AVX2 in the package that `engine_speed.py` takes.)"""


def facts(device: str = "cpu") -> dict[str, Any]:
    """Return what a reader needs to know about the machine, ready for JSON."""
    return {
        "kind": kind(device),
        "simulated": simulated(),
        "cpu": cpu_model(),
        "cores": cores(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": _version("transformers"),
        "load_average": round(os.getloadavg()[0], 2),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
    }


def described(machine: Mapping[str, Any]) -> str:
    """Return the facts in one line, for the head of a table."""
    held = f", held to {machine['simulated']}" if machine["simulated"] else ""
    return (
        f"{machine['cpu']}, {machine['cores']} cores ({machine['cpu_capability']}{held}), "
        f"on {machine['device']}; torch {machine['torch']}, transformers {machine['transformers']}; "
        f"{machine['date']}, commit {machine['commit']}"
    )


def kind(device: str = "cpu") -> str:
    """Return the kind of processor that counts, as a part of a file's name: results of two kinds stand side by side.

    "avx2", "avx512", "avx512-bf16" (bfloat16 in hardware), "avx2-simulated"; of a GPU its name.
    """
    if device.startswith("cuda"):
        return "-".join(torch.cuda.get_device_name().lower().split())
    capability = torch.backends.cpu.get_cpu_capability().lower()
    if capability == "default":
        capability = platform.machine().lower()
    bfloat16 = "-bf16" if capability == "avx512" and "avx512_bf16" in _cpu_info("flags").split() else ""
    return capability + bfloat16 + ("-simulated" if simulated() else "")


def simulated() -> str | None:
    """Return the kind that the environment holds the libraries to, "partly" if it sets some of the variables."""
    for name, variables in SIMULATED.items():
        if all(os.environ.get(key) == value for key, value in variables.items()):
            return name
    return "partly" if any(key in os.environ for variables in SIMULATED.values() for key in variables) else None


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    """Return the processor's name where Linux gives it, else the platform's word for it."""
    return _cpu_info("model name") or platform.processor() or platform.machine()


def commit() -> str:
    """The commit that is checked out, with "+" where files differ from it; "unknown" outside a repository."""
    here = Path(__file__).parent
    try:
        name = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True)
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"], cwd=here, capture_output=True, text=True
        )
    except FileNotFoundError:
        return "unknown"
    return name.stdout.strip() + ("+" if changed.stdout.strip() else "") if name.returncode == 0 else "unknown"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _cpu_info(key: str) -> str:
    """What /proc/cpuinfo says of the first core; empty where it says nothing."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")
