"""Norms against their formulas in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from sublayer import config
from sublayer.nn.normalization import LayerNorm, RMSNorm, build_norm

CONFIGS: list[config.Norm] = [
    config.LayerNorm(),
    config.LayerNorm(bias=False, eps=0.3),
    config.RMSNorm(),
    config.RMSNorm(eps=0.3),
]


def error(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected value."""
    assert actual.shape == expected.shape
    actual, expected = actual.detach().double(), expected.detach().double()
    return float((actual - expected).abs().max() / expected.abs().max())


def built(c: config.Norm, dim: int) -> nn.Module:
    """With weights and biases that an error would show in."""
    module = build_norm(c, dim)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=3.0)
    return module


def formula(c: config.Norm, module: nn.Module, x: Tensor) -> Tensor:
    """Number by number, in Python's floats."""
    weight = module.get_parameter("weight").tolist()
    shift = module.get_parameter("bias").tolist() if c.type == "layer" and c.bias else [0.0] * len(weight)
    rows: list[list[float]] = []
    for row in x.reshape(-1, x.shape[-1]).tolist():
        mean = sum(row) / len(row) if c.type == "layer" else 0.0
        size = math.sqrt(sum((v - mean) ** 2 for v in row) / len(row) + c.eps)
        rows.append([(v - mean) / size * w + b for v, w, b in zip(row, weight, shift)])
    return torch.tensor(rows, dtype=torch.float64).reshape(x.shape)


@pytest.mark.parametrize("c", CONFIGS)
@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 2**-7)])
def test_norm_is_its_formula(c: config.Norm, dtype: torch.dtype, most: float) -> None:
    module = built(c, 20).to(dtype)
    x = (torch.randn(2, 5, 20, dtype=torch.float64) * 4 + 3).to(dtype)
    out = module(x)
    assert out.dtype == dtype
    assert error(out, formula(c, module, x)) < most


@pytest.mark.parametrize("c", CONFIGS)
@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_low_precision_is_computed_in_float32(c: config.Norm, low: torch.dtype) -> None:
    """Squares beyond float16 and a mean that bfloat16 cannot hold: only the last rounding may show."""
    x = (torch.randn(4, 512) * 300 + 100).to(low)
    for module in (built(c, 512), built(c, 512).to(low)):
        out = module(x)
        assert out.dtype == low
        assert error(out, formula(c, module, x)) < 2 * torch.finfo(low).eps


def test_rms_norm_is_llamas() -> None:
    theirs = LlamaRMSNorm(24, eps=0.1)
    nn.init.normal_(theirs.weight, std=3.0)
    ours = RMSNorm(config.RMSNorm(eps=0.1), 24)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(3, 7, 24) * 2 + 1
    assert error(ours(x), theirs(x)) < 1e-6


@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm_is_torchs(bias: bool) -> None:
    theirs = nn.LayerNorm(24, eps=0.1, bias=bias)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=3.0)
    ours = LayerNorm(config.LayerNorm(eps=0.1, bias=bias), 24)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(3, 7, 24) * 2 + 1
    assert error(ours(x), theirs(x)) < 1e-6


@pytest.mark.parametrize("c", CONFIGS)
def test_gradients_are_those_of_finite_differences(c: config.Norm) -> None:
    module = built(c, 6).double()
    names = [name for name, _ in module.named_parameters()]
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, values)), (x,))

    assert torch.autograd.gradcheck(run, (x, *module.parameters()))


@pytest.mark.parametrize("c", CONFIGS)
def test_a_new_norm_only_normalizes(c: config.Norm) -> None:
    out = build_norm(c, 64)(torch.randn(10, 64) * 50 + 7)
    assert out.square().mean(-1).tolist() == pytest.approx([1.0] * 10, abs=1e-2)
    assert ("bias" in dict(build_norm(c, 8).named_parameters())) == (c.type == "layer" and c.bias)
