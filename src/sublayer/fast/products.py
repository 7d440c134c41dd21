"""The three products of a linear map and its gradient, by torch's own library and by oneDNN.

    y = x W^T + b        dL/dx = g W        dL/dW = g^T x

torch sends float32 products to MKL, which on some processors reaches half of what they can do. Both libraries give the
same bits for the same numbers every time, and differ from each other in the last bits only.

Shapes: N rows, I in, O out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Products(NamedTuple):
    """One way to compute the three products; no gradient is recorded through them.

    forward: x [..., I], W [O, I], b [O] or None -> x W^T + b. to_input: g [..., O], W [O, I] -> g W.
    to_weight: g [N, O], x [N, I] -> g^T x.
    """

    forward: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    to_input: Callable[[Tensor, Tensor], Tensor]
    to_weight: Callable[[Tensor, Tensor], Tensor]


def dense(matrix: Tensor) -> Tensor:
    """Return the matrix itself where its rows, or its columns, stand side by side in memory, else a contiguous copy.

    oneDNN reads its first operand at any strides, but its second only like this; one that was sliced from a wider
    matrix, or expanded (strides of 0), it multiplies in a plain loop, 1,000 times slower than a copy and its product.
    """
    return matrix if matrix.is_contiguous() or matrix.t().is_contiguous() else matrix.contiguous()


def _torch_to_weight(g: Tensor, x: Tensor) -> Tensor:
    return g.t() @ x


TORCH = Products(F.linear, torch.matmul, _torch_to_weight)


def _one_dnn() -> Products | None:
    """oneDNN's way, where this torch has the operator; it is not public, so it may go."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return None
    operator: Any = torch.ops.mkldnn._linear_pointwise

    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return operator(x, dense(weight), bias, "none", [], "")

    def to_input(g: Tensor, weight: Tensor) -> Tensor:
        return forward(g, weight.t(), None)

    def to_weight(g: Tensor, x: Tensor) -> Tensor:
        # oneDNN turns its second operand around by itself, the first is copied: that should be the narrower.
        if g.shape[1] <= x.shape[1]:
            return forward(g.t(), x.t(), None)
        return forward(x.t(), g.t(), None).t().contiguous()

    return Products(forward, to_input, to_weight)


ONE_DNN = _one_dnn()
