"""Low-rank adapters: the equation, what learns, and merging."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from laws.models import CONFIGS, build
from sublayer import config
from sublayer.errors import ConfigError
from sublayer.nn.adapter import LowRank, adapt, adapters, load_adapters, merge
from sublayer.nn.linear import Linear

TREE = config.LowRank(rank=3, alpha=7.0)


def redrawn(bias: bool = True) -> LowRank:
    torch.manual_seed(0)
    module = LowRank(Linear(5, 4, bias=bias, dtype=torch.float64), TREE)
    nn.init.normal_(module.up)
    return module


@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_equation(bias):
    module, x = redrawn(bias), torch.randn(2, 6, 5, dtype=torch.float64)
    change = 7.0 / 3 * module.up @ module.down
    expected = x @ (module.weight + change).T + (module.bias if bias else 0)
    torch.testing.assert_close(module(x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(module.merged()(x), expected, rtol=1e-12, atol=1e-12)


def test_an_adapted_model_begins_as_the_model_it_was_and_learns_only_its_adapters():
    model = build(CONFIGS[0])
    source, target = torch.tensor([[5, 6, 7]]), torch.tensor([[1, 5, 6, 2]])
    before = model(source, None, target)
    names = adapt(model, TREE)
    assert names
    torch.testing.assert_close(model(source, None, target), before, rtol=0, atol=0)
    model(source, None, target).square().sum().backward()
    learnt = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learnt == set(adapters(model))
    assert all(parameter.requires_grad == (name in learnt) for name, parameter in model.named_parameters())


def test_merged_is_adapted():
    model = build(CONFIGS[1])
    adapt(model, TREE)
    for parameter in adapters(model).values():
        nn.init.normal_(parameter)
    source, target = torch.tensor([[5, 6, 7]]), torch.tensor([[1, 5, 6, 2]])
    adapted = model(source, None, target)
    merge(model)
    assert not adapters(model)
    assert not any(isinstance(module, LowRank) for module in model.modules())
    torch.testing.assert_close(model(source, None, target), adapted, rtol=1e-10, atol=1e-10)


def test_adapters_travel_alone():
    one, other = build(CONFIGS[1]), build(CONFIGS[1])
    for model in (one, other):
        adapt(model, TREE)
    for parameter in adapters(one).values():
        nn.init.normal_(parameter)
    load_adapters(other, {name: parameter.detach() for name, parameter in adapters(one).items()})
    source, target = torch.tensor([[5, 6, 7]]), torch.tensor([[1, 5, 6, 2]])
    torch.testing.assert_close(other(source, None, target), one(source, None, target), rtol=0, atol=0)
    with pytest.raises(ConfigError, match=r"missing: .*unexpected: other"):
        load_adapters(other, {"other": torch.zeros(1)})


@pytest.mark.parametrize(
    ("targets", "said"),
    [(("*.nothing",), "names no linear map"), (("output",), "tied to an embedding"), ((), "name no linear map")],
)
def test_targets_that_cannot_be_adapted(targets, said):
    tied = next(c for c in CONFIGS if c.kind == "encoder-decoder" and c.tied == "all")
    with pytest.raises(ConfigError, match=said):
        adapt(build(tied), config.LowRank(targets=targets))
