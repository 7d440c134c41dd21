"""Matrices as functions: each way of keeping them beside the product in float64 of what it says that it keeps."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from sublayer import config
from sublayer.laws import relative_error
from sublayer.nn import matrix
from sublayer.nn.activation import ACTIVATIONS
from sublayer.nn.matrix import KEEPING, LARGE, SIDE_BY_SIDE, SMALL

ROWS = (1, 5, 300)
SIZES = ((7, 5), (96, 64), (2 * SMALL // 256, 257), (LARGE // 512, 512))
assert 5 * LARGE // 512 < SIDE_BY_SIDE < 300 * LARGE // 512

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@pytest.fixture
def small_matrices_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made whole numbers like large ones."""
    monkeypatch.setattr(matrix, "LARGE", 0)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def kept(weight: Tensor, weights: config.Weights) -> Tensor:
    """The weight as it is kept, in float64."""
    if weights != "int8" or weight.numel() < LARGE:
        return weight.to(TYPES.get(weights, torch.bfloat16)).double()
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    return ((weight / scale).round() * scale).double()


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize(("rows", "size"), [*product(ROWS, SIZES)])
def test_the_product_is_that_of_the_weights_as_kept(weights: config.Weights, rows: int, size: tuple[int, int]) -> None:
    """Rows of very different sizes, with single large numbers in them, as activations have."""
    weight, bias, x = drawn(1, *size), drawn(2, size[0]), drawn(3, rows, size[1])
    x *= torch.logspace(-3, 3, rows).unsqueeze(1)
    x[:, 1] *= 50
    found = KEEPING[weights](weight, bias)(x)
    assert found.dtype == torch.float32
    narrow = weights == "bfloat16" or (weights == "int8" and weight.numel() < LARGE)
    given = x.bfloat16().double() if narrow else x.double()
    expected = given @ kept(weight, weights).T + bias.double()
    # In int8 x has 16 bits; in bfloat16 bias and result have 8.
    tolerance = 2**-7 if narrow else {"float32": 1e-5, "int8": 5e-4}[weights]
    for one, other in zip(found.double(), expected, strict=True):
        assert relative_error(one, other) < tolerance


@pytest.mark.usefixtures("small_matrices_too")
@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_activation_comes_after_the_bias(weights: config.Weights, activation: config.Activation) -> None:
    for rows in (1, 6):
        weight, bias, x = drawn(1, 24, 16), drawn(2, 24), drawn(3, rows, 16)
        plain, active = (KEEPING[weights](weight, bias, name)(x) for name in (None, activation))
        expected = ACTIVATIONS[activation](plain)
        assert relative_error(active, expected) < (2**-7 if weights == "bfloat16" else 1e-5)
        assert relative_error(plain, expected) > 0.1


@pytest.mark.usefixtures("small_matrices_too")
@pytest.mark.parametrize("rows", ROWS)
def test_a_row_in_int8_does_not_depend_on_the_others(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of whole numbers are exact, so not even in the last bit, and not whether digits are side by side."""
    monkeypatch.setattr(matrix, "SIDE_BY_SIDE", 100)
    keep, x = KEEPING["int8"](drawn(1, 40, 64), drawn(2, 40)), drawn(3, rows, 64)
    x[0] *= 1000
    together = keep(x)
    for row in range(rows):
        assert torch.equal(keep(x[row : row + 1])[0], together[row])


@pytest.mark.usefixtures("small_matrices_too")
@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
def test_rows_of_zeros(weights: config.Weights) -> None:
    weight, bias = drawn(1, 8, 6), drawn(2, 8)
    weight[3] = 0
    x = torch.stack((torch.zeros(6), torch.ones(6)))
    found = KEEPING[weights](weight, bias)(x)
    assert relative_error(found[0], bias) < 2**-8
    assert relative_error(found[1], weight.sum(dim=1) + bias) < 2**-5
    assert found.isfinite().all()


def test_without_one_dnn_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [matrix.why_not(weights) for weights in KEEPING] == [None] * 3
    monkeypatch.setattr(matrix, "one_dnn", lambda: False)
    assert "oneDNN" in str(matrix.why_not("float32"))


def test_a_machine_that_multiplies_bytes_wrongly_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one does whose pairs of products overflow at 2 ** 15."""

    def overflowing(x: Tensor, *arguments: object) -> Tensor:
        pairs = (x.int() @ torch.ones(64, 8, dtype=torch.int32) * 127).clamp(-(2**15), 2**15 - 1)
        return pairs.float()

    matrix._exact.cache_clear()
    monkeypatch.setattr(torch.ops.onednn, "qlinear_pointwise", overflowing)
    assert "8-bit" in str(matrix.why_not("int8"))
    assert matrix.why_not("bfloat16") is None
    monkeypatch.undo()
    matrix._exact.cache_clear()
    assert matrix.why_not("int8") is None
