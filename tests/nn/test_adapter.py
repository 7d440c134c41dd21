"""Low-rank adapters: the equation, what learns, and merging."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from laws.models import CONFIGS, build
from sublayer import config
from sublayer.errors import ConfigError
from sublayer.models import build_model
from sublayer.nn.adapter import LowRank, adapt, adapters, kinds, left_out, load_adapters, merge
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


def mixture() -> nn.Module:
    """A decoder of two layers whose feed-forward networks are mixtures."""
    block = config.Block(
        attention=config.Attention(heads=2), feed_forward=config.MixtureOfExperts(experts=4, active=2, hidden=6)
    )
    stack = config.Stack(layers=2, block=block, position=config.Rotary())
    torch.manual_seed(3)
    return build_model(config.DecoderOnly(dim=8, vocab_size=20, max_length=16, decoder=stack)).double().eval()


def drawn(model: nn.Module) -> None:
    for parameter in adapters(model).values():
        nn.init.normal_(parameter, std=0.5)


@torch.no_grad()
def test_experts_are_adapted_each_by_itself():
    """The usual targets reach every expert: W_e + (alpha / r) B_e A_e, written out on the plain model."""
    plain, model, tokens = mixture(), mixture(), torch.randint(20, (3, 11))
    names = adapt(model, TREE)
    torch.testing.assert_close(model(tokens), plain(tokens), rtol=0, atol=0)
    drawn(model)
    for layer in range(2):
        for matrices in ("gate_up", "down"):
            assert f"decoder.layers.{layer}.feed_forward.{matrices}" in names
            adapter = model.get_submodule(f"decoder.layers.{layer}.feed_forward.{matrices}_adapter")
            for expert in range(4):
                change = TREE.alpha / TREE.rank * adapter.up[expert] @ adapter.down[expert]
                plain.get_parameter(f"decoder.layers.{layer}.feed_forward.{matrices}")[expert] += change
    attention_alone = {name for name in names if ".feed_forward." not in name} | {
        name for name in names if name.endswith("router")
    }
    for name in attention_alone:
        adapter = model.get_submodule(name)
        plain.get_submodule(name).weight += TREE.alpha / TREE.rank * adapter.up @ adapter.down
    torch.testing.assert_close(model(tokens), plain(tokens), rtol=1e-10, atol=1e-10)
    merge(model)
    assert not adapters(model)
    assert [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]
    assert list(model.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(model(tokens), plain(tokens), rtol=1e-10, atol=1e-10)


def test_adapters_of_experts_learn_and_travel_alone():
    model, tokens = mixture(), torch.randint(20, (3, 11))
    adapt(model, TREE)
    drawn(model)
    model(tokens).square().sum().backward()
    learnt = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learnt == set(adapters(model))
    assert any("gate_up_adapter" in name for name in learnt)
    other = mixture()
    adapt(other, TREE)
    load_adapters(other, {name: tensor.detach() for name, tensor in adapters(model).items()})
    torch.testing.assert_close(other(tokens), model(tokens), rtol=0, atol=0)


def test_what_has_no_adapter_is_told():
    model = mixture()
    adapt(model, TREE.model_copy(update={"targets": ("*.self_attention.*", "*.feed_forward.down")}))
    assert (
        kinds(left_out(model)) == "decoder.layers.*.feed_forward.router, output, decoder.layers.*.feed_forward.gate_up"
    )
    with pytest.raises(ConfigError, match=r"decoder\.layers\.\*\.feed_forward\.gate_up"):
        adapt(mixture(), TREE.model_copy(update={"targets": ("*.experts",)}))
