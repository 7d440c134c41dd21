"""A matrix that is only multiplied with, as a plain function of rows, and the types that it may be kept in.

    y = activation(x W^T + b)        x [R, in] and y [R, out], float32

float32   in oneDNN's own layout or transposed, whichever is faster here.
bfloat16  the same, half as large: what is multiplied is rounded to 8 bits, and so is the result.
int8      a quarter as large: a whole number from -127 to 127 for each weight, with a scale for each row of W. The rows
          of x are made whole numbers too, of 16 bits, each row by its own largest number, and multiplied as two digits
          of 8 bits, so that what is lost is lost in W alone and the sums are exact. Small matrices stay in bfloat16.

One digit for x would be quicker, but activations have a few large numbers: with one digit SmolLM2-135M lost 4% of
perplexity; with two it loses 0.2%, and with torch's `quantize_dynamic`, one digit and one scale for all rows, it is of
no use (`docs/results.md`).

Decoding a row reads every weight once, so it is as fast as they are small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Protocol, TypeAlias, cast

import torch
from torch import Tensor

from sublayer import config
from sublayer.fast.choices import SMALL, prepared_way
from sublayer.nn.activation import ACTIVATIONS
from sublayer.nn.linear import one_dnn, pack, product

Function: TypeAlias = Callable[[Tensor], Tensor]
"""[R, in] -> [R, out]. The result is the caller's own, to be written over."""

FUSED: Mapping[config.Activation | None, tuple[str, str]] = {
    None: ("none", ""),
    "relu": ("relu", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
    "silu": ("swish", ""),
    "tanh": ("tanh", ""),
}
"""Our names of activations, and what oneDNN calls them."""


class Keep(Protocol):
    """How a matrix becomes a function: weight [out, in] and bias [out] in float32, which are copied, not kept."""

    def __call__(
        self, weight: Tensor, bias: Tensor | None, activation: config.Activation | None = None
    ) -> Function: ...


def float32(weight: Tensor, bias: Tensor | None, activation: config.Activation | None = None) -> Function:
    several = prepared_way(2, weight.numel()) if one_dnn() else "transposed"
    # A large weight is not held twice.
    one = prepared_way(1, weight.numel()) if one_dnn() and weight.numel() <= SMALL else several
    apply = {way: PREPARED[way](weight, bias, activation) for way in {one, several}}
    of_one, of_several = apply[one], apply[several]
    return of_several if one == several else lambda x: of_one(x) if x.shape[0] == 1 else of_several(x)


def _packed(weight: Tensor, bias: Tensor | None, activation: config.Activation | None = None) -> Function:
    attribute, algorithm = FUSED[activation]
    packed = pack(weight)

    def apply(x: Tensor) -> Tensor:
        y: Tensor = product(x, packed, bias, attribute, [], algorithm)
        return y

    return apply


def _transposed(weight: Tensor, bias: Tensor | None, activation: config.Activation | None = None) -> Function:
    transposed, plain = weight.t().contiguous(), None if activation is None else ACTIVATIONS[activation]

    def apply(x: Tensor) -> Tensor:
        y = x.mm(transposed) if bias is None else torch.addmm(bias, x, transposed)
        return y if plain is None else plain(y)

    return apply


PREPARED: Mapping[str, Keep] = {"packed": _packed, "transposed": _transposed}


def bfloat16(weight: Tensor, bias: Tensor | None, activation: config.Activation | None = None) -> Function:
    attribute, algorithm = FUSED[activation]
    packed, narrow = pack(weight.bfloat16()), None if bias is None else bias.bfloat16()

    def apply(x: Tensor) -> Tensor:
        y: Tensor = product(x.bfloat16(), packed, narrow, attribute, [], algorithm)
        return y.float()

    return apply


DIGITS = 32_639
"""The largest whole number that a row of x is scaled to, 127 * 256 + 127: a digit of -127 to 127 for each byte."""

SIDE_BY_SIDE = 2**18
"""Up to so many results the digits are rows of one product, which reads the weights once; more are too much memory."""

LARGE = 2**20
"""A smaller weight is kept in bfloat16: it is read before x has been made whole numbers."""


def int8(weight: Tensor, bias: Tensor | None, activation: config.Activation | None = None) -> Function:
    if weight.numel() < LARGE:
        return bfloat16(weight, bias, activation)
    times, plain = _whole(weight), None if activation is None else ACTIVATIONS[activation]

    def apply(x: Tensor) -> Tensor:
        y, largest = times(x)
        y = y.mul_(largest) if bias is None else torch.addcmul(bias, y, largest)
        return y if plain is None else plain(y)

    return apply


def _whole(weight: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """x -> y [R, out] and s [R, 1], the largest number of each row, so that s y is x W^T with a W of whole numbers."""
    scale = (weight.abs().amax(dim=1) / 127).clamp_(min=torch.finfo(torch.float32).tiny)
    whole = (weight / scale.unsqueeze(1)).round_().to(torch.int8)
    packed: Any = torch.ops.onednn.qlinear_prepack(whole, None)
    multiply: Any = torch.ops.onednn.qlinear_pointwise
    scale, none = scale / DIGITS, torch.zeros(len(scale), dtype=torch.int64)
    # Digits are bytes of which 128 stands for 0; so 0 is the byte 128 twice, and a half makes cutting off rounding.
    zero, most = torch.tensor(128.0 * 256 + 128 + 0.5), torch.tensor(float(DIGITS))

    def times(digits: Tensor) -> Tensor:
        y: Tensor = multiply(digits, 1.0, 128, packed, scale, none, None, 1.0, 0, torch.float32, "none", [], "")
        return y

    def apply(x: Tensor) -> tuple[Tensor, Tensor]:
        largest = cast(Tensor, torch.linalg.vector_norm(x, float("inf"), dim=1, keepdim=True))
        # In a row of zeros this is no number; whatever digits come of it, they are multiplied by 0 in the end.
        number = torch.addcmul(zero, x, torch.div(most, largest)).to(torch.int32)
        # Its four bytes, the lowest first: two digits and two zeros.
        low, high = number.view(torch.uint8).view(*x.shape, 4).narrow(2, 0, 2).unbind(2)
        if len(x) * len(scale) <= SIDE_BY_SIDE:
            lower, higher = times(torch.cat((low, high))).chunk(2)
        else:
            lower, higher = times(low.contiguous()), times(high.contiguous())
        return lower.add_(higher, alpha=256), largest

    return apply


KEEPING: Mapping[config.Weights, Keep] = {"float32": float32, "bfloat16": bfloat16, "int8": int8}


def why_not(weights: config.Weights) -> str | None:
    """What keeps this machine from computing with such weights; None where nothing does."""
    if not one_dnn():
        return "this torch has no oneDNN, or it is switched off"
    if weights == "int8" and not _exact():
        return "this processor or this torch has no exact products of 8-bit numbers"
    return None


@cache
def _exact() -> bool:
    """Whether products of bytes come out right: older processors overflow at the largest, and not every build can."""
    draw = torch.Generator().manual_seed(0)
    weight = torch.randint(0, 2, (8, 64), generator=draw) * 254.0 - 127.0
    x = torch.randint(0, 2, (3, 64), generator=draw) * 2.0 - 1.0
    try:
        y, largest = _whole(weight)(x)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    expected = x.double() @ weight.double().T
    return bool((y * largest - expected).abs().max() < 1e-3 * expected.abs().max())
