"""What the machine can do, and what is said where it cannot."""

from __future__ import annotations

import sys

import pytest
import torch

from sublayer.errors import ConfigError
from sublayer.training import runtime


def test_a_named_device() -> None:
    assert runtime.pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["nonsense", "cpu:x", "", *([] if torch.cuda.is_available() else ["cuda", "cuda:3"])])
def test_a_device_that_is_not_here(name: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be used here .*Try --device cpu") as caught:
        runtime.pick_device(name)
    assert "\n" not in str(caught.value)
    assert caught.value.what.startswith(f"--device {name} ")


@pytest.mark.parametrize(("cuda", "mps", "chosen"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_the_fastest(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, chosen: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert runtime.pick_device("auto").type == chosen


@pytest.mark.parametrize(("gain", "chosen"), [(1.69, torch.float32), (1.71, torch.bfloat16)])
def test_precision(monkeypatch: pytest.MonkeyPatch, gain: float, chosen: torch.dtype) -> None:
    monkeypatch.setattr(runtime, "bfloat16_gain", lambda: gain)
    cpu = torch.device("cpu")
    assert runtime.resolve_precision("auto", cpu) is chosen
    assert runtime.resolve_precision("float32", cpu) is torch.float32
    assert runtime.resolve_precision("bfloat16", cpu) is torch.bfloat16


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_elsewhere_the_allocator_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []

    class Library:
        def __init__(self, name: None) -> None: ...

        def mallopt(self, what: int, value: int) -> int:
            calls.append((what, value))
            return 1

    monkeypatch.setattr(runtime.ctypes, "CDLL", Library)
    assert runtime.keep_freed_memory()
    # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h.
    assert {what for what, _ in calls} == {-3, -1}
    calls.clear()
    monkeypatch.setattr(runtime.sys, "platform", "darwin")
    assert not runtime.keep_freed_memory()
    assert not calls
