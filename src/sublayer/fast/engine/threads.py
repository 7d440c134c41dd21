"""How many threads compute: as many as torch says, where it is there; else what it would say."""

from __future__ import annotations

import os
import sys


def threads() -> int:
    """The number that torch or OMP_NUM_THREADS says; else one for each processor that this process has."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):
        return int(torch.get_num_threads())
    told = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if told.isdecimal() and 0 < int(told) <= MOST:
        return int(told)
    return min(MOST, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def use_threads(count: int | None) -> None:
    """Compute with so many threads from here on, in this process and in those that it starts; None changes nothing."""
    if count is None:
        return
    # Whoever is not loaded yet reads it then.
    os.environ["OMP_NUM_THREADS"] = str(count)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(count)


MOST = 256
