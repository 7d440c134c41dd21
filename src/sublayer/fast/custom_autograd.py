"""Where a function written by hand may stand for torch's own.

Some functions torch computes on a CPU in many passes over memory, or through the slower of two libraries. Those that a
training step spends its time in are written here as `torch.autograd.Function`s with a gradient of their own. Such a
function is opaque to whoever looks into it or changes what it means (tracing, transformations of functions, other kinds
of tensors); there, and wherever it gains nothing, torch's own is used. The two differ in the last bits only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

_native: Any = torch._C  # pyright: ignore[reportPrivateUsage]
# A torch that cannot say whether `torch.func` is at work gets its own functions.
_transforming: Callable[[], bool] = getattr(_native, "_are_functorch_transforms_active", lambda: True)


def may_replace(*tensors: Tensor | None) -> bool:
    """Whether these are ordinary tensors on a CPU that nobody traces or transforms; None counts as ordinary."""
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        and not _transforming()
        and all(x is None or _ordinary(x) for x in tensors)
    )


def _ordinary(x: Tensor) -> bool:
    # A subclass may mean anything by a function; a tangent of forward mode would be lost.
    return (
        type(x) in (Tensor, nn.Parameter)
        and x.device.type == "cpu"
        and x.layout is torch.strided
        and forward_ad.unpack_dual(x).tangent is None
    )
