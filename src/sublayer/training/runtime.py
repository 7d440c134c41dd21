"""Where and how a run computes: the device, its memory allocator, and the type of its products."""

from __future__ import annotations

import ctypes
import sys
from typing import Literal

import torch

from sublayer.errors import ConfigError
from sublayer.fast.choices import BFLOAT16_PAYS, bfloat16_gain


def pick_device(name: str = "auto") -> torch.device:
    """The named device; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: the device does not exist here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {name} cannot be used here ({reason})", "Try --device cpu.") from None
    return device


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks for the next step instead of giving them back to the kernel.

    A training step frees and takes the same large blocks over and over; given back, every page of them faults in
    again. Kept, a step on a CPU takes 0.65 to 0.75 of the time (docs/results.md). Does nothing where there is no
    glibc; returns whether it was done.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    trim_threshold, mmap_threshold = -1, -3
    return bool(mallopt(mmap_threshold, 1 << 30)) and bool(mallopt(trim_threshold, 2**31 - 1))


def resolve_precision(wanted: Literal["auto", "float32", "bfloat16"], device: torch.device) -> torch.dtype:
    """The type of products: as wanted, or for "auto" bfloat16 where this machine is measured to be fast at it."""
    if wanted != "auto":
        return torch.float32 if wanted == "float32" else torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type == "cpu" and bfloat16_gain() >= BFLOAT16_PAYS:
        return torch.bfloat16
    return torch.float32
