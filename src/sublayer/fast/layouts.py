"""A float32 weight in the layouts that a product reads faster: oneDNN's own, or transposed.

    y = activation(x W^T + b)        x [R, in] and y [R, out], float32

Both are copies, made once for a weight that stays the same. The numbers differ in the last bits only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from sublayer.fast.facts import Way
from sublayer.fast.products import ONE_DNN

Function: TypeAlias = Callable[[Tensor], Tensor]
"""[R, in] -> [R, out]. The result is the caller's own, to be written over."""


class Fused(NamedTuple):
    """An activation within a product: oneDNN's name and algorithm for it, and the same as a function of its own."""

    name: str
    algorithm: str
    function: Function | None


PLAIN = Fused("none", "", None)


class Layout(Protocol):
    """How a weight [out, in] becomes a function; weight and bias are in float32, the weight is copied."""

    def __call__(self, weight: Tensor, bias: Tensor | None, activation: Fused = PLAIN) -> Function: ...


def one_dnn() -> bool:
    """Return whether this build of torch has oneDNN's products, and they are not switched off."""
    return ONE_DNN is not None and bool(torch.backends.mkldnn.enabled)


def pack(weight: Tensor) -> Tensor:
    """Return the weight [out, in], float32 or bfloat16, in oneDNN's own layout, for `multiply`."""
    # The layout is chosen for so many rows at a time; it is right, and near the best, for any number.
    packed: Any = torch.ops.mkldnn._reorder_linear_weight(weight, 32)
    return packed


multiply: Any = torch.ops.mkldnn._linear_pointwise if ONE_DNN is not None else None
"""(x [R, in], packed weight, bias or None, activation, [], its algorithm) -> activation(x W^T + b) [R, out]."""


def packed(weight: Tensor, bias: Tensor | None, activation: Fused = PLAIN) -> Function:
    """Return the product with the weight in oneDNN's layout, the activation within it."""
    name, algorithm, _ = activation
    held = pack(weight)

    def apply(x: Tensor) -> Tensor:
        y: Tensor = multiply(x, held, bias, name, [], algorithm)
        return y

    return apply


def transposed(weight: Tensor, bias: Tensor | None, activation: Fused = PLAIN) -> Function:
    """Return torch's own product with W^T as a matrix of its own."""
    held, finish = weight.t().contiguous(), activation.function
    if finish is not None:
        return lambda x: finish(x.mm(held) if bias is None else torch.addmm(bias, x, held))
    return lambda x: x.mm(held) if bias is None else torch.addmm(bias, x, held)


LAYOUTS: Mapping[Way, Layout] = {"packed": packed, "transposed": transposed}
