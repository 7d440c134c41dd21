"""Norms against their formulas in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from sublayer import config
from sublayer.nn.normalization import LayerNorm, Norm, RMSNorm, build_norm
from sublayer.nn.part import NotProvided

CONFIGS: list[config.Norm] = [
    config.LayerNorm(),
    config.LayerNorm(bias=False, eps=0.3),
    config.RMSNorm(),
    config.RMSNorm(eps=0.3),
    config.ScaleNorm(),
    config.ScaleNorm(eps=200.0),
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
    weight = module.get_parameter("weight").expand(x.shape[-1]).tolist()
    shift = module.get_parameter("bias").tolist() if c.type == "layer" and c.bias else [0.0] * len(weight)
    rows: list[list[float]] = []
    for row in x.reshape(-1, x.shape[-1]).tolist():
        mean = sum(row) / len(row) if c.type == "layer" else 0.0
        if c.type == "scale":
            size = max(math.sqrt(sum(v * v for v in row)), c.eps)
        else:
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


def equation(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


@pytest.mark.parametrize("shape", [(300, 64), (4, 9, 40), (2, 3, 5, 16), (1, 256), (0, 8)])
@pytest.mark.parametrize("frozen", ["nothing", "input", "weight"])
@pytest.mark.parametrize("eps", [1e-6, 0.3])
def test_gradients_of_rms_norm_are_the_equations(shape: tuple[int, ...], frozen: str, eps: float) -> None:
    """In float32, against autograd of the equation in float64; inputs and gradients of any strides."""
    module = built(config.RMSNorm(eps=eps), shape[-1])
    x = (torch.randn(*shape[1:-1], shape[0], shape[-1]) * 4 + 3).movedim(-2, 0).requires_grad_()
    g = torch.randn(*shape[::-1]).permute(*range(len(shape))[::-1]) * 5 + 2
    leaves = {"input": x, "weight": module.weight}
    if frozen != "nothing":
        leaves.pop(frozen).requires_grad_(False)
    exact = {name: leaf.detach().double().requires_grad_() for name, leaf in (("input", x), ("weight", module.weight))}
    y, wanted = module(x), equation(exact["input"], exact["weight"], eps)
    assert y.shape == shape
    found = torch.autograd.grad(y, list(leaves.values()), g)
    expected = torch.autograd.grad(wanted, [exact[name] for name in leaves], g.double())
    for ours, theirs in zip([y, *found], [wanted, *expected]):
        assert ours.dtype == torch.float32
        assert ours.shape == theirs.shape
        if ours.numel() and shape[0]:
            assert error(ours, theirs) < 2e-6


def test_rms_norm_of_numbers_large_small_and_nothing() -> None:
    module = built(config.RMSNorm(eps=1e-6), 32)
    x = torch.randn(5, 32) * torch.tensor([1e-12, 1e-3, 1.0, 1e4, 1e15])[:, None]
    x[0, :16] = 0
    x = torch.cat([x, torch.zeros(1, 32)]).requires_grad_()
    g = torch.randn(6, 32)
    exact, weight = x.detach().double().requires_grad_(), module.weight.detach().double().requires_grad_()
    y, wanted = module(x), equation(exact, weight, 1e-6)
    found = torch.autograd.grad(y, [x, module.weight], g)
    expected = torch.autograd.grad(wanted, [exact, weight], g.double())
    assert error(found[1], expected[1]) < 2e-6
    for row in range(6):  # each in its own measure
        assert error(found[0][row], expected[0][row]) < 1e-5
        assert row == 5 or error(y[row], wanted[row]) < 1e-5
    assert not y[5].any()


def test_rms_norm_can_be_differentiated_twice_in_float32() -> None:
    module = built(config.RMSNorm(eps=0.1), 24)
    x = (torch.randn(30, 24) * 2 + 1).requires_grad_()
    g = torch.randn(30, 24).requires_grad_()
    exact = [t.detach().double().requires_grad_() for t in (x, module.weight, g)]

    def second(y: Tensor, x: Tensor, weight: Tensor, g: Tensor) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(y, [x, weight], g, create_graph=True)
        return torch.autograd.grad(sum(t.square().sum() for t in first), [x, weight, g])

    found = second(module(x), x, module.weight, g)
    expected = second(equation(exact[0], exact[1], 0.1), *exact)
    for ours, wanted in zip(found, expected):
        assert error(ours, wanted) < 1e-5


def test_rms_norm_under_autocast_and_transformations() -> None:
    """The gradient by hand must not be computed in bfloat16, and where it cannot follow, torch's own is."""
    module = built(config.RMSNorm(), 64)
    x = (torch.randn(50, 64) * 3).requires_grad_()
    g = torch.randn(50, 64)
    plain = torch.autograd.grad(module(x), [x, module.weight], g)
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
        low = torch.autograd.grad(y, [x, module.weight], g)
    assert y.dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(plain, low))
    rows = torch.func.vmap(torch.func.grad(lambda row, up: (module(row) * up).sum()))(x.detach(), g)
    assert error(rows, plain[0].double()) < 2e-6
    halves = module(x.bfloat16())
    assert halves.dtype == torch.bfloat16
    halves.sum().backward()
    assert x.grad is not None


def test_rms_norm_has_the_same_value_with_a_gradient_and_without() -> None:
    module = built(config.RMSNorm(), 64)
    x = torch.randn(50, 64) * 3
    with torch.no_grad():
        without = module(x)
    assert error(module(x), without.double()) < 1e-6


@pytest.mark.parametrize("c", CONFIGS)
def test_a_new_norm_only_normalizes(c: config.Norm) -> None:
    out = build_norm(c, 64)(torch.randn(10, 64) * 50 + 7)
    assert out.square().mean(-1).tolist() == pytest.approx([1.0] * 10, abs=1e-2)
    assert ("bias" in dict(build_norm(c, 8).named_parameters())) == (c.type == "layer" and c.bias)


@pytest.mark.parametrize("c", CONFIGS)
def test_a_norm_is_linear_at_its_scale(c: config.Norm) -> None:
    """Held at the scale of x, it is a linear map that gives, for x, what the norm gives, less its bias."""
    module = build_norm(c, 20).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=3.0)
    x, y, z = torch.randn(3, 4, 20, dtype=torch.float64)
    held = module.at_scale(x)
    shift = 0.0 if module.bias is None else module.bias
    assert error(held(x) + shift, module(x)) < 1e-12
    assert error(held(2 * y - z), 2 * held(y) - held(z)) < 1e-12


def test_what_a_norm_does_not_say_is_refused_by_its_name() -> None:
    class Strange(Norm):
        pass

    with pytest.raises(NotProvided, match="Strange does not say what is linear of it"):
        Strange().at_scale(torch.ones(3))
    with pytest.raises(NotProvided, match="Strange does not say how its weights begin"):
        Strange().reset_parameters()
    # No parameters, so no axis of any.
    assert Strange().stream_axes() == {}
