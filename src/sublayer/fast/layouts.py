"""A float32 weight in the layouts that a product reads faster: oneDNN's own, or transposed.

    y = x W^T + b        x [R, in] and y [R, out], float32

Both are copies, made once for a weight that stays the same. The numbers differ in the last bits only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sublayer.fast.facts import Way
from sublayer.fast.products import ONE_DNN

Function: TypeAlias = Callable[[Tensor], Tensor]
"""[R, in] -> [R, out]. The result is the caller's own, to be written over."""
Layout: TypeAlias = Callable[[Tensor, Tensor | None], Function]
"""How a weight [out, in] with its bias [out], or None, becomes a function; both in float32, the weight is copied."""


def one_dnn() -> bool:
    """Return whether this build of torch has oneDNN's products, and they are not switched off."""
    return ONE_DNN is not None and bool(torch.backends.mkldnn.enabled)


def packed(weight: Tensor, bias: Tensor | None) -> Function:
    """Return the product with the weight in oneDNN's layout."""
    operators: Any = torch.ops.mkldnn
    multiply = operators._linear_pointwise
    # The layout is chosen for so many rows at a time; it is right, and near the best, for any number.
    held = operators._reorder_linear_weight(weight, 32)
    return lambda x: multiply(x, held, bias, "none", [], "")


def transposed(weight: Tensor, bias: Tensor | None) -> Function:
    """Return torch's own product with W^T as a matrix of its own."""
    held = weight.t().contiguous()
    return lambda x: x.mm(held) if bias is None else torch.addmm(bias, x, held)


LAYOUTS: Mapping[Way, Layout] = {"packed": packed, "transposed": transposed}
