"""RMSNorm with a gradient of its own, in few passes over memory.

    r = 1 / sqrt(mean(x ** 2) + eps)        y = r x w
    dL/dw = sum over rows of g r x          dL/dx = r g w - r ** 3 x mean(g w x)

torch has no kernel for it on a CPU; forward and backward take it a dozen passes.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from sublayer.fast import custom_autograd


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`torch.nn.functional.rms_norm` over the last dimension, the faster way.

    Shape: x [..., D], weight [D] -> [..., D].
    """
    full = x.dtype == weight.dtype and x.dtype in (torch.float32, torch.float64)
    if torch.is_grad_enabled() and full and custom_autograd.may_replace(x, weight):
        return cast(Tensor, _RMSNorm.apply(x, weight, eps))  # pyright: ignore[reportUnknownMemberType]
    return F.rms_norm(x, weight.shape, weight, eps)


class _RMSNorm(Function):
    """As above.

    LayerNorm's gradient, given 0 for the mean and r for the inverse of the deviation, is this one less r mean(g w).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        norm = cast(Tensor, torch.linalg.vector_norm(x, dim=-1, keepdim=True))
        r = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, r)
        ctx.eps = eps
        return (x * r).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = upstream
        x, weight, r = cast("tuple[Tensor, Tensor, Tensor]", ctx.saved_tensors)
        to_x, to_weight, _ = ctx.needs_input_grad
        if torch.is_grad_enabled():  # a gradient that is to be differentiated again is autograd's to compute
            wanted = [value for value, asked in ((x, to_x), (weight, to_weight)) if asked]
            y = F.rms_norm(x, weight.shape, weight, ctx.eps)
            found = iter(torch.autograd.grad(y, wanted, g, create_graph=True))
            return (next(found) if to_x else None, next(found) if to_weight else None, None)
        with torch.autocast("cpu", enabled=False):
            dx, dw, _ = torch.ops.aten.native_layer_norm_backward(
                g, x, weight.shape, torch.zeros_like(r), r, weight, None, [to_x, to_weight, False]
            )
            if to_x:
                dx.add_((g @ weight).unsqueeze(-1).mul_(r).div_(x.shape[-1]))
        return (dx if to_x else None, dw if to_weight else None, None)
