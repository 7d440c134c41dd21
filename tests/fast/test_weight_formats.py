"""Matrices as functions: each way of keeping them beside the product in float64 of what it says that it keeps."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from sublayer import config
from sublayer.fast.choices import SMALL
from sublayer.fast.decoding import weight_formats
from sublayer.fast.decoding.weight_formats import BYTE_PRODUCTS, LARGE, SIDE_BY_SIDE, WEIGHT_FORMATS, ByteProduct
from sublayer.laws import relative_error
from sublayer.nn.activation import ACTIVATIONS

ROWS = (1, 5, 300)
SIZES = ((7, 5), (96, 64), (2 * SMALL // 256, 257), (LARGE // 512, 512))
assert 5 * LARGE // 512 < SIDE_BY_SIDE < 300 * LARGE // 512

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

EXACT = [way for way in BYTE_PRODUCTS if weight_formats._exact(way)]
"""Whatever is switched on."""


@pytest.fixture
def small_matrices_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made whole numbers like large ones."""
    monkeypatch.setattr(weight_formats, "LARGE", 0)
    monkeypatch.setattr(weight_formats, "LARGE_IN_PIECES", 0)


@pytest.fixture(params=["as here", "without oneDNN", "in pieces", *EXACT], ids=lambda way: way_name(way))
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several kinds of processor: how they multiply what is narrow."""
    match request.param:
        case ByteProduct() as way:
            monkeypatch.setattr(weight_formats, "exact_byte_product", lambda: way)
        case "without oneDNN":
            monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
        case "in pieces":
            monkeypatch.setattr(weight_formats, "exact_byte_product", lambda: None)
            monkeypatch.setattr(weight_formats, "packs_bfloat16", lambda: False)
        case _:
            pass


def way_name(way: ByteProduct | str) -> str:
    return f"{way.multiply.__name__[1:]} {way.base}" if isinstance(way, ByteProduct) else way


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def outlying(rows: int, width: int) -> Tensor:
    """Rows of very different sizes, with single large numbers in them, as activations have."""
    x = drawn(3, rows, width) * torch.logspace(-3, 3, rows).unsqueeze(1)
    x[:, 1] *= 50
    return x


@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
@pytest.mark.parametrize(("rows", "size"), [*product(ROWS, SIZES)])
@pytest.mark.usefixtures("processor")
def test_the_product_is_that_of_the_weights_as_kept(weights: config.Weights, rows: int, size: tuple[int, int]) -> None:
    weight, bias, x = drawn(1, *size), drawn(2, size[0]), outlying(rows, size[1])
    found = WEIGHT_FORMATS[weights](weight, bias)(x)
    assert found.dtype == torch.float32
    given, kept = (t.to(TYPES[weights]).double() for t in (x, weight))
    expected = given @ kept.T + bias.double()
    # In bfloat16 bias and result have 8 bits.
    tolerance = {"float32": 1e-5, "bfloat16": 2**-7}[weights]
    for one, other in zip(found.double(), expected, strict=True):
        assert relative_error(one, other) < tolerance


@pytest.mark.parametrize(("rows", "size"), [*product(ROWS, SIZES)])
@pytest.mark.usefixtures("small_matrices_too", "processor")
def test_in_int8_only_the_rounding_of_the_weights_and_of_x_is_lost(rows: int, size: tuple[int, int]) -> None:
    """By number: half a unit of x for each weight that it meets, and what float32 rounds of what is summed."""
    weight, bias, x = drawn(1, *size), drawn(2, size[0]), outlying(rows, size[1])
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    kept = (weight / scale).round().double() * scale.double()
    expected = x.double() @ kept.T + bias.double()
    found = WEIGHT_FORMATS["int8"](weight, bias)(x).double()
    way = weight_formats.exact_byte_product()
    unit = 0.0 if way is None else x.abs().amax(dim=1, keepdim=True).double() / weight_formats.most(way.base)
    # A little of a unit more, for scaling x to units rounds too.
    lost = unit / 2 * (1 + 2**-8) * kept.abs().sum(dim=1)
    # Whole numbers are summed without rounding; in pieces each addition rounds.
    roundings = 8 + (size[1] if way is None else 0)
    rounded = roundings * 2**-24 * (x.double().abs() @ kept.abs().T + bias.abs())
    assert ((found - expected).abs() <= lost + rounded).all()


@pytest.mark.usefixtures("small_matrices_too", "processor")
@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_activation_comes_after_the_bias(weights: config.Weights, activation: config.Activation) -> None:
    for rows in (1, 6):
        weight, bias, x = drawn(1, 24, 16), drawn(2, 24), drawn(3, rows, 16)
        plain, active = (WEIGHT_FORMATS[weights](weight, bias, name)(x) for name in (None, activation))
        expected = ACTIVATIONS[activation](plain)
        assert relative_error(active, expected) < (2**-7 if weights == "bfloat16" else 1e-5)
        assert relative_error(plain, expected) > 0.1


@pytest.mark.usefixtures("small_matrices_too")
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("way", EXACT, ids=way_name)
def test_a_row_in_int8_does_not_depend_on_the_others(
    way: ByteProduct, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums of whole numbers are exact, so not even in the last bit, and not whether digits are side by side."""
    monkeypatch.setattr(weight_formats, "exact_byte_product", lambda: way)
    monkeypatch.setattr(weight_formats, "SIDE_BY_SIDE", 100)
    keep, x = WEIGHT_FORMATS["int8"](drawn(1, 40, 64), drawn(2, 40)), drawn(3, rows, 64)
    x[0] *= 1000
    together = keep(x)
    for row in range(rows):
        assert torch.equal(keep(x[row : row + 1])[0], together[row])


@pytest.mark.usefixtures("small_matrices_too", "processor")
@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
def test_rows_of_zeros(weights: config.Weights) -> None:
    weight, bias = drawn(1, 8, 6), drawn(2, 8)
    weight[3] = 0
    x = torch.stack((torch.zeros(6), torch.ones(6)))
    found = WEIGHT_FORMATS[weights](weight, bias)(x)
    assert relative_error(found[0], bias) < 2**-8
    assert relative_error(found[1], weight.sum(dim=1) + bias) < 2**-5
    assert found.isfinite().all()


def test_small_matrices_stay_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, bias, x = drawn(1, 40, 64), drawn(2, 40), drawn(3, 3, 64)
    for packs in {weight_formats.packs_bfloat16(), False}:
        monkeypatch.setattr(weight_formats, "packs_bfloat16", lambda packs=packs: packs)
        assert torch.equal(WEIGHT_FORMATS["int8"](weight, bias)(x), WEIGHT_FORMATS["bfloat16"](weight, bias)(x))


def overflowing(whole: Tensor, scale: Tensor, base: int) -> Callable[[Tensor], Tensor]:
    """As a processor does that adds two products of bytes in 16 bits; the digits are positive there."""

    def apply(digits: Tensor) -> Tensor:
        products = (digits + base // 2).unsqueeze(1) * whole.float()
        pairs = products.unflatten(-1, (-1, 2)).sum(-1).clamp(-(2**15), 2**15 - 1)
        return (pairs.sum(-1) - base // 2 * whole.float().sum(1)) * scale

    return apply


def test_a_processor_whose_pairs_of_bytes_overflow_gets_digits_of_seven_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = (ByteProduct(overflowing, 256), ByteProduct(overflowing, 128))
    monkeypatch.setattr(weight_formats, "BYTE_PRODUCTS", ways)
    assert weight_formats.exact_byte_product() == ways[1]


def test_a_way_that_is_not_there_or_switched_off_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(whole: Tensor, scale: Tensor, base: int) -> Callable[[Tensor], Tensor]:
        raise AttributeError("no such operator")

    monkeypatch.setattr(
        weight_formats, "BYTE_PRODUCTS", (ByteProduct(missing, 256), ByteProduct(weight_formats._by_one_dnn, 256))
    )
    monkeypatch.setattr(weight_formats, "_exact", lambda way: way.multiply is not missing)
    assert weight_formats.exact_byte_product() == (
        ByteProduct(weight_formats._by_one_dnn, 256) if weight_formats.one_dnn() else None
    )
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert weight_formats.exact_byte_product() is None
