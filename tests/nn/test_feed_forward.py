"""Feed-forward networks against their formulas and against transformers' own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.activations import ACT2FN
from transformers.models.llama.modeling_llama import LlamaMLP

from sublayer import config
from sublayer.nn.feed_forward import ACTIVATIONS, Gated, PositionWise, build_feed_forward

FORMULAS: dict[config.Activation, Callable[[float], float]] = {
    "relu": lambda x: max(0.0, x),
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "tanh": lambda x: (math.exp(x) - math.exp(-x)) / (math.exp(x) + math.exp(-x)),
}
THEIRS = {"relu": "relu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "silu": "silu", "tanh": "tanh"}
DIM, HIDDEN = 6, 10


def error(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected value."""
    assert actual.shape == expected.shape
    actual, expected = actual.detach().double(), expected.detach().double()
    return float((actual - expected).abs().max() / expected.abs().max())


def built(c: config.FeedForward, dtype: torch.dtype = torch.float64) -> PositionWise | Gated:
    """With weights and biases that an error would show in."""
    module = build_feed_forward(c, DIM).to(dtype)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=1.5)
    return module


def linear(weight: list[list[float]], bias: list[float] | None, x: list[float]) -> list[float]:
    return [
        sum(w * v for w, v in zip(row, x, strict=True)) + (bias[i] if bias is not None else 0.0)
        for i, row in enumerate(weight)
    ]


def numbers(module: nn.Linear) -> tuple[list[list[float]], list[float] | None]:
    return module.weight.tolist(), module.bias.tolist() if module.bias is not None else None


def test_every_activation_has_a_formula_here() -> None:
    assert set(ACTIVATIONS) == set(FORMULAS) == set(THEIRS)


@pytest.mark.parametrize("name", FORMULAS)
def test_activation_is_its_formula(name: config.Activation) -> None:
    x = torch.linspace(-6, 6, 101, dtype=torch.float64)
    out = ACTIVATIONS[name](x)
    assert error(out, torch.tensor([FORMULAS[name](v) for v in x.tolist()], dtype=torch.float64)) < 1e-12
    assert error(out, ACT2FN[THEIRS[name]](x)) < 1e-12


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", FORMULAS)
def test_position_wise_is_equation_2(name: config.Activation, bias: bool) -> None:
    module = built(config.PositionWise(hidden=HIDDEN, activation=name, bias=bias))
    assert isinstance(module, PositionWise)
    x = torch.randn(2, 3, DIM, dtype=torch.float64)
    expected = [
        linear(*numbers(module.down), [FORMULAS[name](v) for v in linear(*numbers(module.up), row)])
        for row in x.reshape(-1, DIM).tolist()
    ]
    assert error(module(x), torch.tensor(expected, dtype=torch.float64).reshape(x.shape)) < 1e-12


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", FORMULAS)
def test_gated_is_shazeers_equation(name: config.Activation, bias: bool) -> None:
    module = built(config.Gated(hidden=HIDDEN, activation=name, bias=bias))
    assert isinstance(module, Gated)
    assert module.gate_up.weight.shape == (2 * HIDDEN, DIM)
    weight, shift = numbers(module.gate_up)
    x = torch.randn(2, 3, DIM, dtype=torch.float64)
    expected: list[list[float]] = []
    for row in x.reshape(-1, DIM).tolist():
        gate = linear(weight[:HIDDEN], None if shift is None else shift[:HIDDEN], row)
        up = linear(weight[HIDDEN:], None if shift is None else shift[HIDDEN:], row)
        product = [FORMULAS[name](g) * u for g, u in zip(gate, up, strict=True)]
        expected.append(linear(*numbers(module.down), product))
    assert error(module(x), torch.tensor(expected, dtype=torch.float64).reshape(x.shape)) < 1e-12


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", FORMULAS)
def test_gated_is_llamas(name: config.Activation, bias: bool) -> None:
    theirs = LlamaMLP(
        LlamaConfig(
            hidden_size=DIM,
            num_attention_heads=1,
            intermediate_size=HIDDEN,
            hidden_act=THEIRS[name],
            mlp_bias=bias,
        )
    ).double()
    ours = built(config.Gated(hidden=HIDDEN, activation=name, bias=bias))
    state = ours.state_dict()
    for kind in ("weight", "bias") if bias else ("weight",):
        gate, up = state.pop(f"gate_up.{kind}").chunk(2)
        state |= {f"gate_proj.{kind}": gate, f"up_proj.{kind}": up, f"down_proj.{kind}": state.pop(f"down.{kind}")}
    theirs.load_state_dict(state)
    x = torch.randn(2, 3, DIM, dtype=torch.float64)
    assert error(ours(x), theirs(x)) < 1e-12


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", FORMULAS)
def test_squared_is_primers(name: config.Activation, bias: bool) -> None:
    module = built(config.Squared(hidden=HIDDEN, activation=name, bias=bias))
    x = torch.randn(4, DIM, dtype=torch.float64)
    expected: list[list[float]] = []
    for row in x.tolist():
        hidden = [FORMULAS[name](value) ** 2 for value in linear(*numbers(module.up), row)]
        expected.append(linear(*numbers(module.down), hidden))
    assert error(module(x), torch.tensor(expected, dtype=torch.float64)) < 1e-12


def test_squared_relu_is_transformers() -> None:
    module = built(config.Squared(hidden=HIDDEN))
    x = torch.randn(4, DIM, dtype=torch.float64)
    assert error(module(x), module.down(ACT2FN["relu2"](module.up(x)))) < 1e-12


@pytest.mark.parametrize("kind", [config.PositionWise, config.Gated, config.Squared])
def test_positions_do_not_see_each_other(kind: Any) -> None:
    module = built(kind(hidden=HIDDEN))
    x = torch.randn(1, 4, DIM, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(module(x)[0, 2].sum(), x)
    assert gradient[0, 2].abs().sum() > 0
    assert gradient[0, [0, 1, 3]].abs().sum() == 0


@pytest.mark.parametrize("kind", [config.PositionWise, config.Gated, config.Squared])
def test_dropout_acts_on_the_hidden_layer_in_training_only(kind: Any) -> None:
    module = built(kind(hidden=1, dropout=0.25, bias=False))
    exact = built(kind(hidden=1, dropout=0.0, bias=False))
    exact.load_state_dict(module.state_dict())
    x = torch.randn(1, DIM, dtype=torch.float64).abs() * exact_sign(exact)
    kept = exact(x)
    assert kept.abs().sum() > 0
    assert torch.equal(module.eval()(x), kept)
    many = module.train()(x.expand(4000, DIM))
    # With a single hidden unit a row is either nothing at all, or all of it over 1 - p: never a part.
    dropped = (many == 0).all(-1)
    assert error(many[~dropped], (kept / 0.75).expand(int((~dropped).sum()), DIM)) < 1e-12
    assert float(dropped.double().mean()) == pytest.approx(0.25, abs=0.04)
    assert torch.equal(exact.train()(x), kept)


def exact_sign(module: PositionWise | Gated) -> Tensor:
    """Signs that make the hidden unit (or its gate) positive, so that ReLU lets it pass."""
    first = module.up if isinstance(module, PositionWise) else module.gate_up
    return first.weight[0].detach().sign()
