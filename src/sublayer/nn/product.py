"""The products of a linear map and of its gradient, in float32 on a CPU through oneDNN.

    y = x W^T + b        dL/dx = g W        dL/dW = g^T x        dL/db = sum of the rows of g

torch sends them to MKL, which on processors of another maker reaches half of what these can do
(docs/architecture.md). Both ways give the same bits for the same numbers every time, and differ from each other in the
last bits only. Whoever wants torch's way says so by torch's own switch, `torch.backends.mkldnn.enabled = False`.

Shapes: N rows, I in, O out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from sublayer.nn import by_hand


class Products(NamedTuple):
    """One way to compute the three products; no gradient is recorded through them.

    forward: x [..., I], W [O, I], b [O] or None -> x W^T + b. to_input: g [..., O], W [O, I] -> g W.
    to_weight: g [N, O], x [N, I] -> g^T x.
    """

    forward: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    to_input: Callable[[Tensor, Tensor], Tensor]
    to_weight: Callable[[Tensor, Tensor], Tensor]


def _to_weight(g: Tensor, x: Tensor) -> Tensor:
    return g.t() @ x


TORCH = Products(F.linear, torch.matmul, _to_weight)


def _one_dnn() -> Products | None:
    """oneDNN's way, where this torch has the operator; it is not public, so it may go."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return None
    operator: Any = torch.ops.mkldnn._linear_pointwise

    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return operator(x, weight, bias, "none", [], "")

    def to_input(g: Tensor, weight: Tensor) -> Tensor:
        return forward(g, weight.t(), None)

    def to_weight(g: Tensor, x: Tensor) -> Tensor:
        # oneDNN turns its second operand around by itself, the first is copied: that should be the narrower.
        if g.shape[1] <= x.shape[1]:
            return forward(g.t(), x.t(), None)
        return forward(x.t(), g.t(), None).t().contiguous()

    return Products(forward, to_input, to_weight)


ONE_DNN = _one_dnn()

# Multiplications below which a call of oneDNN costs more than it gains.
LEAST = 2**21


def products(x: Tensor, weight: Tensor) -> Products:
    """The faster way for x [..., I] and W [O, I] and what follows from them; `TORCH` where oneDNN does not fit.

    oneDNN fits float32 without autocast on a CPU for which torch was built with MKL, beginning at `LEAST`
    multiplications; it has to be there and switched on.
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
        return ONE_DNN
    return TORCH


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`torch.nn.functional.linear` with its gradients, the faster way.

    Shape: x [..., I], weight [O, I], bias [O] -> [..., O].
    """
    if by_hand.may_replace(x, weight, bias) and products(x, weight) is not TORCH:
        return cast(Tensor, _Linear.apply(x, weight, bias))  # pyright: ignore[reportUnknownMemberType]
    return F.linear(x, weight, bias)


class _Linear(Function):
    """oneDNN's three products as one differentiable function."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        assert ONE_DNN is not None
        ctx.save_for_backward(x, weight)
        return ONE_DNN.forward(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = upstream
        x, weight = cast("tuple[Tensor, Tensor]", ctx.saved_tensors)
        # A gradient that is to be differentiated again is torch's to compute.
        by = TORCH if ONE_DNN is None or torch.is_grad_enabled() else ONE_DNN
        rows = g.reshape(-1, g.shape[-1])
        to_x, to_weight, to_bias = ctx.needs_input_grad
        return (
            by.to_input(g, weight) if to_x else None,
            by.to_weight(rows, x.reshape(-1, x.shape[-1])) if to_weight else None,
            rows.sum(dim=0) if to_bias else None,
        )
