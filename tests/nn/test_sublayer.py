"""The three norm placements by their formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sublayer import config
from sublayer.nn.sublayer import SubLayer

DIM = 6
NormPlacement = Literal["post", "pre", "sandwich"]


def make(norm_placement: NormPlacement, norm: config.Norm, dropout: float = 0.0) -> SubLayer:
    c = config.Block(
        attention=config.Attention(heads=1),
        feed_forward=config.PositionWise(hidden=1),
        norm=norm,
        norm_placement=norm_placement,
        dropout=dropout,
    )
    sublayer = SubLayer(c, DIM).double()
    with torch.no_grad():
        for parameter in sublayer.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return sublayer


def function(x: Tensor) -> Tensor:
    """Not linear, so that a norm before it and one after it are told apart."""
    return 3 * x.sin() + 1


def layer_norm(module: nn.Module, x: Tensor) -> Tensor:
    """By its definition, with the module's own weights."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * module.weight + module.bias


def rms_norm(module: nn.Module, x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * module.weight


def through(norm: nn.Module | None, x: Tensor) -> Tensor:
    """A norm that the norm placement may not have."""
    return x if norm is None else norm(x)


def formula(
    sublayer: SubLayer, norm_placement: NormPlacement, x: Tensor, norm: Callable[[nn.Module, Tensor], Tensor]
) -> Tensor:
    match norm_placement:
        case "post":
            return norm(sublayer.outer, x + function(x))
        case "pre":
            return x + function(norm(sublayer.before, x))
        case "sandwich":
            return x + norm(sublayer.after, function(norm(sublayer.before, x)))


@pytest.mark.parametrize("norm_placement", ["post", "pre", "sandwich"])
@pytest.mark.parametrize(("norm", "by_hand"), [(config.LayerNorm(), layer_norm), (config.RMSNorm(), rms_norm)])
def test_formula(
    norm_placement: NormPlacement, norm: config.Norm, by_hand: Callable[[nn.Module, Tensor], Tensor]
) -> None:
    sublayer = make(norm_placement, norm)
    x = torch.randn(2, 3, DIM, dtype=torch.float64)
    expected = formula(sublayer, norm_placement, x, by_hand)
    torch.testing.assert_close(sublayer(x, function), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("norm_placement", "norms"), [("post", 1), ("pre", 1), ("sandwich", 2)])
def test_only_the_norms_of_the_wiring_have_weights(norm_placement: NormPlacement, norms: int) -> None:
    assert sum(parameter.numel() for parameter in make(norm_placement, config.RMSNorm()).parameters()) == norms * DIM


@pytest.mark.parametrize("norm_placement", ["post", "pre", "sandwich"])
def test_dropout_is_on_what_is_added_to_the_stream(norm_placement: NormPlacement) -> None:
    """Section 5.4: on the output of each sub-layer, before it is added to the input and normalized."""
    sublayer = make(norm_placement, config.LayerNorm(), dropout=0.4)
    x = torch.randn(4, 5, DIM, dtype=torch.float64)
    torch.manual_seed(1)
    found = sublayer(x, function)
    torch.manual_seed(1)
    written = through(sublayer.after, function(through(sublayer.before, x)))
    expected = through(sublayer.outer, x + F.dropout(written, 0.4))
    assert torch.equal(found, expected)
    sublayer.eval()
    assert torch.equal(sublayer(x, function), through(sublayer.outer, x + written))


@pytest.mark.parametrize("norm_placement", ["post", "pre", "sandwich"])
def test_the_tap_sees_what_is_written_and_may_replace_it(norm_placement: NormPlacement) -> None:
    sublayer = make(norm_placement, config.LayerNorm())
    x = torch.randn(2, 3, DIM, dtype=torch.float64)
    seen: list[Tensor] = []
    handle = sublayer.output.register_forward_hook(lambda _m, _i, output: seen.append(output))
    sublayer(x, function)
    assert torch.equal(seen[0], through(sublayer.after, function(through(sublayer.before, x))))
    handle.remove()
    sublayer.output.register_forward_hook(lambda _m, _i, output: torch.zeros_like(output))
    assert torch.equal(sublayer(x, function), through(sublayer.outer, x))
