"""The products of a linear map and of its gradient in float32 on a CPU, by whichever library is faster here.

    y = x W^T + b        dL/dx = g W        dL/dW = g^T x        dL/db = sum of the rows of g

Which one is measured, for each of the products. Whoever wants torch's own says so by torch's own
switch, `torch.backends.mkldnn.enabled = False`.

Shapes: N rows, I in, O out.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from sublayer.fast import custom_autograd
from sublayer.fast.choices import training_products
from sublayer.fast.products import ONE_DNN, TORCH, Products

# Multiplications below which a call of oneDNN costs more than it gains.
LEAST = 2**21


def fastest_products(x: Tensor, weight: Tensor) -> Products:
    """Return the faster ways for x [..., I] and W [O, I] and what follows from them; `TORCH` where oneDNN does not fit.

    oneDNN fits float32 without autocast on a CPU for which torch was built with MKL, beginning at `LEAST`
    multiplications; it has to be there, switched on, and clearly faster on this machine.
    """
    if (
        ONE_DNN is not None
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and x.dim() >= 2
        and x.numel() * weight.shape[0] >= LEAST
        and torch.backends.mkldnn.enabled
        and torch.backends.mkl.is_available()
        and not torch.is_autocast_enabled("cpu")
    ):
        return training_products(x.numel() // x.shape[-1], weight.shape[0])
    return TORCH


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`torch.nn.functional.linear` with its gradients, the faster way.

    Shape: x [..., I], weight [O, I], bias [O] -> [..., O].
    """
    if custom_autograd.may_replace(x, weight, bias) and (by := fastest_products(x, weight)) is not TORCH:
        return cast(Tensor, _Linear.apply(x, weight, bias, by))  # pyright: ignore[reportUnknownMemberType]
    return F.linear(x, weight, bias)


class _Linear(Function):
    """The three products, each by its own library, as one differentiable function."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, by: Products) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.by = by
        return by.forward(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = upstream
        x, weight = cast("tuple[Tensor, Tensor]", ctx.saved_tensors)
        # A gradient that is to be differentiated again is torch's to compute.
        by: Products = TORCH if torch.is_grad_enabled() else ctx.by
        rows = g.reshape(-1, g.shape[-1])
        to_x, to_weight, to_bias = ctx.needs_input_grad[:3]
        return (
            by.to_input(g, weight) if to_x else None,
            by.to_weight(rows, x.reshape(-1, x.shape[-1])) if to_weight else None,
            rows.sum(dim=0) if to_bias else None,
            None,
        )
