"""Prepared linear maps against torch's own, and that a changed weight is noticed."""

import pytest
import torch
from torch import nn

from sublayer.nn.linear import Linear, prepare


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 24), (1, 1, 24), (2, 24), (5, 1, 24), (3, 7, 24), (64, 24)])
def test_prepared_is_plain(bias: bool, shape: tuple[int, ...]) -> None:
    linear = Linear(24, 40, bias=bias)
    for parameter in linear.parameters():
        nn.init.normal_(parameter, std=3.0)
    x = torch.randn(*shape)
    with torch.inference_mode():
        plain = linear(x)
        linear.prepare()
        prepared = linear(x)
    expected = x.double() @ linear.weight.double().T + (linear.bias.double() if bias else 0)
    assert prepared.shape == plain.shape == expected.shape
    scale = expected.abs().max()
    assert (plain - expected).abs().max() / scale < 1e-6
    assert (prepared - expected).abs().max() / scale < 1e-6


@pytest.mark.parametrize("rows", [1, 6])
def test_a_changed_weight_is_noticed(rows: int) -> None:
    linear = Linear(8, 8)
    linear.prepare()
    x = torch.randn(rows, 8)
    with torch.no_grad():
        before = linear(x)
        linear.weight.add_(1.0)
        torch.testing.assert_close(linear(x), before + x.sum(-1, keepdim=True))
        linear.weight = nn.Parameter(torch.zeros(8, 8))
        torch.testing.assert_close(linear(x), linear.bias.expand(rows, 8))


def test_gradients_and_other_types_go_the_plain_way() -> None:
    model = nn.Sequential(Linear(8, 8), Linear(8, 4))
    prepare(model)
    x = torch.randn(3, 8, requires_grad=True)
    model(x).sum().backward()
    assert x.grad is not None
    assert all(parameter.grad is not None for parameter in model.parameters())
    with torch.inference_mode():
        assert model.double()(x.double()).dtype == torch.float64
