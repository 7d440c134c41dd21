"""Weight formats: a matrix that is only multiplied with, as a function of rows, and the types that it may be kept in.

    y = activation(x W^T + b)        x [R, in] and y [R, out], float32

float32   in oneDNN's own layout or transposed, whichever is faster here.
bfloat16  half as large: what is multiplied is rounded to 8 bits, and so is the result.
int8      a quarter as large: a whole number from -127 to 127 for each weight, with a scale for each row of W. The rows
          of x are made whole numbers too, each row by its own largest number, and multiplied as two digits of one byte,
          so that what is lost is lost in W alone and the sums are exact. Small matrices stay in bfloat16.

One digit for x would be quicker, but activations have a few large numbers: with one digit SmolLM2-135M lost 4% of
perplexity; with two of 8 bits it loses 0.2%, and with torch's `quantize_dynamic`, one digit and one scale for all rows,
it is of no use (`docs/results.md`).

Every processor has each of them. Which products it has is found by trying them. Where none fits, the matrix is kept as
narrow, made float32 a piece at a time, and multiplied so.

Decoding a row reads every weight once, so it is as fast as they are small.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor

from sublayer import config
from sublayer.fast.layouts import PLAIN, Function, Fused, one_dnn, packed
from sublayer.fast.prepared import prepared
from sublayer.nn.activation import ACTIVATIONS

FUSED: Mapping[config.Activation | None, Fused] = {
    None: PLAIN,
    "relu": Fused("relu", "", ACTIVATIONS["relu"]),
    "gelu": Fused("gelu", "none", ACTIVATIONS["gelu"]),
    "gelu_tanh": Fused("gelu", "tanh", ACTIVATIONS["gelu_tanh"]),
    "silu": Fused("swish", "", ACTIVATIONS["silu"]),
    "tanh": Fused("tanh", "", ACTIVATIONS["tanh"]),
}
"""Our names of activations, what oneDNN calls them, and what they are."""


class WeightFormat(Protocol):
    """How a matrix becomes a function: weight [out, in] and bias [out] in float32, which are copied, not kept."""

    def __call__(
        self, weight: Tensor, bias: Tensor | None, activation: config.Activation | None = None
    ) -> Function: ...


def float32(weight: Tensor, bias: Tensor | None, activation: config.Activation | None = None) -> Function:
    return prepared(weight, bias, FUSED[activation])


def bfloat16(weight: Tensor, bias: Tensor | None, activation: config.Activation | None = None) -> Function:
    if not packs_bfloat16():
        return _in_pieces(weight.bfloat16(), None, bias, activation)
    multiply = packed(weight.bfloat16(), None if bias is None else bias.bfloat16(), FUSED[activation])
    return lambda x: multiply(x.bfloat16()).float()


def int8(weight: Tensor, bias: Tensor | None, activation: config.Activation | None = None) -> Function:
    if weight.numel() < (LARGE if packs_bfloat16() else LARGE_IN_PIECES):
        return bfloat16(weight, bias, activation)
    scale = (weight.abs().amax(dim=1) / 127).clamp_(min=torch.finfo(torch.float32).tiny)
    whole = (weight / scale.unsqueeze(1)).round_().to(torch.int8)
    exact = exact_byte_product()
    if exact is None:
        return _in_pieces(whole, scale, bias, activation)
    times, finish = by_digits(whole, scale, *exact), _finish(activation)

    def apply(x: Tensor) -> Tensor:
        y, largest = times(x)
        return finish(y.mul_(largest) if bias is None else torch.addcmul(bias, y, largest))

    return apply


def _finish(activation: config.Activation | None) -> Function:
    return FUSED[activation].function or (lambda y: y)


# --- bfloat16 ------------------------------------------------------------------------------------------------------

PIECE = 2**16
"""So many numbers are made float32 at once: they stay in a core's own cache until they have been multiplied."""


def _in_pieces(
    narrow: Tensor, scale: Tensor | None, bias: Tensor | None, activation: config.Activation | None
) -> Function:
    """The product by a matrix of any type, multiplied in float32; `scale` [out] is of its rows."""
    pieces = cast("tuple[Tensor, ...]", narrow.split(max(1, PIECE // narrow.shape[1])))
    finish = _finish(activation)
    half = narrow.dtype == torch.bfloat16

    def apply(x: Tensor) -> Tensor:
        if half and len(x) == 1:
            # torch's product of a matrix and a vector sums in float32 and needs no instructions for bfloat16.
            y = narrow.mv(x[0].bfloat16()).float().unsqueeze(0)
        else:
            x = x.bfloat16().float() if half else x
            y = torch.cat([x.mm(piece.float().t()) for piece in pieces], dim=1)
        if scale is not None:
            y = y.mul_(scale)
        return finish(y if bias is None else y.add_(bias))

    return apply


def packs_bfloat16() -> bool:
    """Return whether oneDNN is there, on, and multiplies bfloat16 on this processor."""
    return one_dnn() and _packs_bfloat16()


@cache
def _packs_bfloat16() -> bool:
    ones = torch.ones(16, 16, dtype=torch.bfloat16)
    try:
        return bool((packed(ones, None)(ones) == 16).all())
    except RuntimeError:
        return False


# --- int8 ----------------------------------------------------------------------------------------------------------

LARGE = 2**20
"""A smaller weight is kept in bfloat16: oneDNN reads it before x has been made whole numbers."""

LARGE_IN_PIECES = 2**19
"""The same where bfloat16 goes in pieces, which takes longer."""

SIDE_BY_SIDE = 2**18
"""Up to so many results the digits are rows of one product, which reads the weights once; more are too much memory."""


class ByteProduct(NamedTuple):
    """How bytes are multiplied.

    multiply: (W [out, in] int8, scale [out], base) -> (digits [R, in], whole numbers from -base/2 to base/2 - 1, in
    float32 -> digits W^T scale). base: of the digits.
    """

    multiply: Callable[[Tensor, Tensor, int], Function]
    base: int


def _by_one_dnn(whole: Tensor, scale: Tensor, base: int) -> Function:
    packed: Any = torch.ops.onednn.qlinear_prepack(whole, None)
    multiply: Any = torch.ops.onednn.qlinear_pointwise
    zero, none = base // 2, torch.zeros(len(scale), dtype=torch.int64)

    def apply(digits: Tensor) -> Tensor:
        given = digits.add_(zero).to(torch.uint8)
        y: Tensor = multiply(given, 1.0, zero, packed, scale, none, None, 1.0, 0, torch.float32, "none", [], "")
        return y

    return apply


def _by_fbgemm(whole: Tensor, scale: Tensor, base: int) -> Function:
    multiply: Any = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
    none, engine = torch.zeros(len(scale), dtype=torch.int64), torch.backends.quantized.engine
    with warnings.catch_warnings():
        # torch means to take such tensors away some day; then this way is not found, and another is taken.
        warnings.simplefilter("ignore")
        # Of whole numbers as they are; the public way begins with numbers that it rounds itself.
        make: Any = torch._make_per_channel_quantized_tensor  # pyright: ignore
        weight = make(whole, scale.double(), none, 0)
        try:
            torch.backends.quantized.engine = "fbgemm"
            packed: Any = torch.ops.quantized.linear_prepack(weight, None)
        finally:
            torch.backends.quantized.engine = engine

    def apply(digits: Tensor) -> Tensor:
        y: Tensor = multiply(digits, 1.0, base // 2, packed)
        return y

    return apply


BYTE_PRODUCTS = (ByteProduct(_by_one_dnn, 256), ByteProduct(_by_fbgemm, 256), ByteProduct(_by_fbgemm, 128))
"""From the fastest on. A processor without instructions for them adds two products of bytes in 16 bits, where
2 * 255 * 127 overflows and 2 * 127 * 127 does not: there digits have 7 bits, and x has 14 in the place of 16."""


def exact_byte_product() -> ByteProduct | None:
    """Return the first of `BYTE_PRODUCTS` that is there, switched on, and comes out right on this processor."""
    there = (way for way in BYTE_PRODUCTS if way.multiply is not _by_one_dnn or one_dnn())
    return next(filter(_exact, there), None)


@cache
def _exact(way: ByteProduct) -> bool:
    """Whether the largest products of bytes come out right."""
    draw = torch.Generator().manual_seed(0)
    whole = (torch.randint(0, 2, (8, 64), generator=draw) * 254 - 127).to(torch.int8)
    half = way.base // 2
    digits = torch.randint(0, 2, (3, 64), generator=draw) * float(way.base - 1) - half
    # The largest sums too: all of one sign.
    whole[0], digits[0], digits[1] = 127, half - 1, -half
    try:
        y = way.multiply(whole, torch.ones(8), way.base)(digits.clone())
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return torch.equal(y, digits.mm(whole.float().t()))


def most(base: int) -> int:
    """Return the largest whole number that two digits can say, whose sign may be either."""
    return (base // 2 - 1) * (base + 1)


def by_digits(
    whole: Tensor, scale: Tensor, multiply: Callable[[Tensor, Tensor, int], Function], base: int
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """x -> y [R, out] and s [R, 1], the largest number of each row, so that s y is x W^T with W = scale * whole."""
    times = multiply(whole, scale / most(base), base)
    top, half = torch.tensor(float(most(base))), base / 2

    def apply(x: Tensor) -> tuple[Tensor, Tensor]:
        largest = cast(Tensor, torch.linalg.vector_norm(x, float("inf"), dim=1, keepdim=True))
        # In a row of zeros this is no number; whatever digits come of it, they are multiplied by 0 in the end.
        number = x.mul(torch.div(top, largest)).round_()
        # The base is a power of two: nothing is rounded but by `floor_`.
        high = number.add(half).mul_(1 / base).floor_()
        low = number.sub_(high, alpha=base)
        if len(x) * len(scale) <= SIDE_BY_SIDE:
            lower, higher = times(torch.cat((low, high))).chunk(2)
        else:
            lower, higher = times(low), times(high)
        return lower.add_(higher, alpha=base), largest

    return apply


WEIGHT_FORMATS: Mapping[config.Weights, WeightFormat] = {"float32": float32, "bfloat16": bfloat16, "int8": int8}
