"""What is known of a machine: what it is, and how fast it was measured to be.

Plain values, written as JSON: into the cache, so that a machine is measured once, and into the folder of a run, which
goes on with the choices that it began with.
"""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import torch
from pydantic import BaseModel, ConfigDict

Product: TypeAlias = Literal["forward", "to_input", "to_weight"]
Way: TypeAlias = Literal["torch", "onednn", "transposed", "packed"]
"""torch: torch's own (MKL in float32). onednn: oneDNN's linear. transposed: torch's, of a copy of W^T. packed: the one
of oneDNN, with W in a layout of its own. The last two need a weight that stays the same."""


class Size(NamedTuple):
    """A product x W^T of N rows with a matrix W [O, I]; 2 N I O floating-point operations."""

    rows: int
    width: int
    out: int

    @property
    def flops(self) -> int:
        return 2 * self.rows * self.width * self.out


SIZES = {
    "probe": Size(128, 128, 128),
    "one row, small": Size(1, 256, 256),
    "one row": Size(1, 512, 2048),
    "few rows": Size(8, 512, 1024),
    "training": Size(768, 256, 768),
    "vocabulary": Size(96, 256, 8192),
    "square": Size(768, 768, 768),
}
"""The sizes that are measured, by what they stand for."""

LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")
"""Environment variables that keep a library from instructions that the processor has."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Identity(_Value):
    """What must be the same for a measurement to hold.

    instructions: the set that torch uses, such as "AVX2". limits: those of `LIMITS` that are set, as NAME=VALUE.
    cores: that this process may use. one_dnn: whether torch has it and it is switched on.
    layout: of this page; a file of another is not read.
    """

    processor: str
    instructions: str
    limits: tuple[str, ...]
    cores: int
    torch: str
    one_dnn: bool
    layout: int = 1

    @staticmethod
    def here() -> Identity:
        return Identity(
            processor=processor_name(),
            instructions=torch.backends.cpu.get_cpu_capability(),
            limits=tuple(f"{name}={os.environ[name]}" for name in LIMITS if name in os.environ),
            cores=usable_cores(),
            torch=torch.__version__,
            one_dnn=torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled),
        )

    @property
    def key(self) -> str:
        """A short name for all of it: what is kept under one is not for another."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


class Speed(_Value):
    """How fast one product is at one of `SIZES`, in GFLOP/s."""

    size: str
    dtype: str
    way: Way
    product: Product
    gflops: float


class Threads(_Value):
    """GFLOP/s of a square product of `width` in float32 with so many threads."""

    width: int
    threads: int
    gflops: float


class Attention(_Value):
    """Seconds of one attention, forward and backward, by torch's fused kernel and by plain products."""

    dtype: str
    fused: float
    products: float


class Machine(_Value):
    """The facts of a machine. What could not be measured, or was hopeless at the probe, is not in the lists.

    bandwidth: bytes read and written in a second by one large copy.
    """

    identity: Identity
    speeds: tuple[Speed, ...] = ()
    threads: tuple[Threads, ...] = ()
    attention: tuple[Attention, ...] = ()
    bandwidth: float = 0.0

    def gflops(self, size: str, dtype: str, way: Way = "torch", product: Product = "forward") -> float:
        """GFLOP/s of a product; 0 where it was not measured."""
        for speed in self.speeds:
            if (speed.size, speed.dtype, speed.way, speed.product) == (size, dtype, way, product):
                return speed.gflops
        return 0.0

    def fastest(self, size: str, ways: tuple[Way, ...], product: Product = "forward", dtype: str = "float32") -> Way:
        """Return the first of `ways`, unless another was measured to be clearly faster; what is near is noise."""
        best = max(ways, key=lambda way: self.gflops(size, dtype, way, product))
        before = self.gflops(size, dtype, ways[0], product)
        return best if self.gflops(size, dtype, best, product) > CLEARLY * before else ways[0]


CLEARLY = 1.15
"""So many times faster is faster, on a machine where other programs run too."""


def processor_name() -> str:
    """The name that the processor gives itself; its architecture where it gives none."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """How many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
