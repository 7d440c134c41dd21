"""The machine that this process runs on: measured once, remembered in the cache, and asked by every choice."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock

import torch

from sublayer.errors import StorageError
from sublayer.fast.facts import CLEARLY, Identity, Machine
from sublayer.fast.measure import measure
from sublayer.files import cache_folder, write_text

__all__ = [
    "Machine", "machine", "machine_file", "machine_is", "machine_of_run", "multiply_dtype", "read_machine",
    "write_machine",
]  # fmt: skip

_known: Machine | None = None
_log = logging.getLogger("sublayer")
_lock = RLock()


def machine() -> Machine:
    """Return the facts of this machine.

    They are asked for when first needed, read from the cache, and measured where nothing fitting stands there, which
    takes less than a second. A cache that cannot be read or written is no error.
    """
    global _known
    if _known is None:
        with _lock:
            if _known is None:
                _known = _remembered()
    return _known


@contextmanager
def machine_is(facts: Machine) -> Generator[None]:
    """Choose by these facts within the block, in every thread; what was known before holds again after it."""
    global _known
    with _lock:
        before, _known = _known, facts
    try:
        yield
    finally:
        with _lock:
            _known = before


def multiply_dtype(device: torch.device | str) -> torch.dtype:
    """Return the fastest type for products of medium square matrices that need no more than bfloat16's 8 bits.

    It is bfloat16 where that is measured to be clearly faster (on a CPU) or supported (on CUDA), else float32.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type != "cpu":
        return torch.float32
    here = machine()
    faster = here.gflops("square", "bfloat16") > CLEARLY * here.gflops("square", "float32")
    return torch.bfloat16 if faster else torch.float32


@contextmanager
def machine_of_run(folder: Path, *, resume: bool) -> Generator[None]:
    """Choose, within the block, by the facts that the run in `folder` began with, where it is to go on.

    `write_machine` puts them there when a run begins. A run without them goes by what this machine is now.
    """
    path = folder / "machine.json"
    facts = read_machine(path) if resume else None
    if facts is None:
        if resume and path.exists():
            _log.warning("%s is damaged; the run goes on by what this machine is now", path)
        yield
    else:
        with machine_is(facts):
            yield


def read_machine(path: Path) -> Machine | None:
    """Return the facts that stand in a file; None where there is none, or one that is damaged or of another layout."""
    try:
        return Machine.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def write_machine(facts: Machine, path: Path) -> None:
    """Write the facts as JSON.

    Raises:
        StorageError: the disk refused.
    """
    write_text(path, facts.model_dump_json(indent=1) + "\n")


def machine_file(identity: Identity) -> Path:
    """Return where the cache keeps the facts of such a machine."""
    return cache_folder() / "machine" / f"{identity.key}.json"


def _remembered() -> Machine:
    """What the cache holds, or what is measured now."""
    identity = Identity.here()
    try:
        path = machine_file(identity)
    except StorageError:  # there is no home
        return measure()
    held = read_machine(path)
    if held is not None and held.identity == identity:
        return held
    if path.exists():
        _log.warning("%s is damaged, or another machine's; this one is measured anew", path)
    facts = measure()
    # Another process may have been quicker: all go by what stands in the cache.
    held = read_machine(path)
    if held is not None and held.identity == identity:
        return held
    with suppress(StorageError):
        write_machine(facts, path)
    return facts
