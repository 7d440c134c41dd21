"""How far apart two results are, how far they may be, and what a law found."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sublayer.nn.tap import Tap, hooked, named_modules

TOLERANCES: Mapping[torch.dtype, float] = {
    torch.float64: 1e-10,
    torch.float32: 1e-5,
    torch.float16: 1e-2,
    torch.bfloat16: 5e-2,
}
"""The largest relative error that the order of additions explains; a real error is orders of magnitude larger."""


@dataclass(frozen=True)
class Finding:
    """What one law found on one model.

    law: the equivalence, as "this = that". error: how far the two were apart, relative. tolerance: how far they may
    be. passed: whether the law holds. detail: what was compared, or what went wrong.
    """

    law: str
    error: float
    tolerance: float
    passed: bool
    detail: str = ""


def finding(law: str, error: float, tolerance: float, detail: str = "", *, fault: str = "") -> Finding:
    """A finding that passes where `error` is within `tolerance` (NaN is not) and nothing else was at fault.

    Args:
        fault: what was wrong other than the numbers; replaces `detail`.
    """
    return Finding(law, error, tolerance, error <= tolerance and not fault, fault or detail)


def relative_error(a: Tensor, b: Tensor, real: Tensor | None = None) -> float:
    """max |a - b| / max |b|: the largest difference in units of the largest number expected.

    Not element by element, where a sum that happens to cancel would be divided by nearly 0. Infinite where either
    holds a number that is not finite, or where b is all zeros and a is not.

    Shape: a, b [B, T, ...], floating; real [B, T], boolean, the positions that count; all where left out.

    Raises:
        ValueError: the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"cannot compare shapes {tuple(a.shape)} and {tuple(b.shape)}")
    if real is not None:
        a, b = a[real], b[real]
    if a.numel() == 0:
        return 0.0
    if not bool(a.isfinite().all() & b.isfinite().all()):
        return float("inf")
    wide = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    difference, size = (a.to(wide) - b.to(wide)).abs().max().item(), b.to(wide).abs().max().item()
    if difference == 0.0:
        return 0.0
    return difference / size if size else float("inf")


def tolerance(model: nn.Module) -> float:
    """The relative error that the type of the model's weights allows."""
    return TOLERANCES[next(model.parameters()).dtype]


@contextmanager
def listening(model: nn.Module, suffix: str = "") -> Generator[dict[str, list[Tensor]]]:
    """Listen to every tap whose name ends in `suffix`; yields what each has shown so far, by name."""
    named = named_modules(model)
    taps = {name: module for name, module in named if isinstance(module, Tap) and name.endswith(suffix)}
    seen: dict[str, list[Tensor]] = {name: [] for name in taps}
    with hooked(taps, lambda name: lambda _module, _inputs, output: seen[name].append(output)):
        yield seen
