"""Attention: the explicit way against a plain loop, the fused way against the explicit, and which of them runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import sublayer.nn.attend as module
from machines import machine_with
from sublayer.fast.machine import machine_is
from sublayer.nn.attend import attend, explicit, fused
from sublayer.nn.mask import Mask, ResolvedMask
from sublayer.nn.tap import Tap


@dataclass
class Case:
    query: Tensor
    key: Tensor
    value: Tensor
    scope: ResolvedMask
    bias: Tensor | None
    scale: float


@st.composite
def cases(draw: st.DrawFn) -> Case:
    batch, groups, repeats = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    keys, width = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    queries, heads = draw(st.integers(1, keys)), groups * repeats
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64) * 2

    numbers = torch.randint(0, keys + 1, (batch,), generator=generator)
    segment = torch.randint(0, 2, (batch, keys), generator=generator)
    mask = draw(
        st.sampled_from(
            [
                Mask.everything(),
                Mask.causal(),
                Mask.causal() & Mask.window(2),
                Mask.window(2),
                Mask.padding(numbers),
                Mask.left_padding(numbers) & Mask.causal(),
                Mask.segments(segment) & Mask.causal(),
            ]
        )
    )
    bias = draw(st.sampled_from([None, normal(heads, queries, keys), normal(batch, heads, queries, keys)]))
    scope = mask.resolve(queries, keys, device=torch.device("cpu"), dtype=torch.float64, bias=bias)
    return Case(
        normal(batch, heads, queries, width),
        normal(batch, groups, keys, width),
        normal(batch, groups, keys, width),
        scope,
        bias,
        draw(st.sampled_from([width**-0.5, 0.3])),
    )


def looped(case: Case) -> tuple[list[list[list[list[float]]]], list[list[list[list[float]]]]]:
    """Equation 1 with plain numbers: the result and the weights."""
    batch, heads, queries, width = case.query.shape
    groups, keys = case.key.shape[1:3]
    allowed = torch.ones(1, dtype=torch.bool) if case.scope.allowed is None else case.scope.allowed
    allowed_bhst = allowed.expand(batch, heads, queries, keys).tolist()
    bias = torch.zeros(1) if case.bias is None else case.bias
    bias_bhst = bias.expand(batch, heads, queries, keys).tolist()
    query, key, value = case.query.tolist(), case.key.tolist(), case.value.tolist()
    mixed = [[[[0.0] * width for _ in range(queries)] for _ in range(heads)] for _ in range(batch)]
    weights = [[[[0.0] * keys for _ in range(queries)] for _ in range(heads)] for _ in range(batch)]
    for b in range(batch):
        for h in range(heads):
            g = h * groups // heads
            for i in range(queries):
                exponentials = {
                    j: math.exp(
                        case.scale * sum(query[b][h][i][d] * key[b][g][j][d] for d in range(width))
                        + bias_bhst[b][h][i][j]
                    )
                    for j in range(keys)
                    if allowed_bhst[b][h][i][j]
                }
                for j, exponential in exponentials.items():
                    weights[b][h][i][j] = exponential / sum(exponentials.values())
                    for d in range(width):
                        mixed[b][h][i][d] += weights[b][h][i][j] * value[b][g][j][d]
    return mixed, weights


@given(cases())
def test_explicit_is_the_equation(case: Case) -> None:
    mixed, weights = looped(case)
    tap = Tap()
    shown: list[Tensor] = []
    tap.register_forward_hook(lambda _m, _i, output: shown.append(output))
    result = explicit(case.query, case.key, case.value, case.scope, scale=case.scale, tap=tap)
    torch.testing.assert_close(result, torch.tensor(mixed, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(shown[0], torch.tensor(weights, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@given(cases())
def test_fused_is_explicit_forward_and_backward(case: Case) -> None:
    inputs = [case.query, case.key, case.value]
    results: list[Tensor] = []
    gradients: list[tuple[Tensor, ...]] = []
    for way in (explicit, fused):
        leaves = [x.clone().requires_grad_() for x in inputs]
        result = way(*leaves, case.scope, scale=case.scale)
        results.append(result)
        towards = torch.randn(result.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        gradients.append(torch.autograd.grad(result, leaves, towards))
    torch.testing.assert_close(results[1], results[0], rtol=1e-11, atol=1e-11)
    for found, expected in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("masked", [False, True])
def test_gradient_of_the_bias_is_the_same_both_ways(masked: bool) -> None:
    """T5's relative bias is trained through the kernel."""
    gradients: list[Tensor] = []
    for way in (explicit, fused):
        torch.manual_seed(0)
        query, key, value = (torch.randn(2, 3, 5, 4, dtype=torch.float64) for _ in range(3))
        bias = torch.randn(3, 5, 5, dtype=torch.float64).requires_grad_()
        mask = Mask.causal() & Mask.padding(torch.tensor([5, 3])) if masked else Mask.everything()
        scope = mask.resolve(5, 5, device=bias.device, dtype=bias.dtype, bias=bias)
        gradients.append(torch.autograd.grad(way(query, key, value, scope, scale=0.5).square().sum(), bias)[0])
    assert gradients[0].abs().max() > 0.01
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("way", [explicit, fused])
def test_dropout_drops_weights_and_scales_the_others(way) -> None:
    """With the identity as values the result is the weights: each is 0, or 1 / (1 - p) of what it was."""
    torch.manual_seed(3)
    size, p = 16, 0.25
    query, key = torch.randn(2, 4, size, 8), torch.randn(2, 4, size, 8)
    value = torch.eye(size).expand(2, 4, -1, -1)
    scope = Mask.causal().resolve(size, size, device=query.device, dtype=query.dtype)
    plain = way(query, key, value, scope, scale=0.3)
    dropped = way(query, key, value, scope, scale=0.3, dropout=p)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], plain[kept] / (1 - p))
    allowed = plain != 0
    rate = 1 - (kept & allowed).sum() / allowed.sum()
    # 1088 weights: three standard deviations are 0.04.
    assert abs(rate.item() - p) < 0.04


def unreachable(*_: object, **__: object) -> Tensor:
    raise AssertionError("took the wrong way")


@pytest.mark.parametrize(
    ("dtype", "listened", "wrong"),
    [
        (torch.float32, False, "explicit"),
        (torch.float64, False, "explicit"),
        (torch.float32, True, "fused"),
        (torch.bfloat16, True, "fused"),
    ],
)
def test_which_way_is_taken(dtype: torch.dtype, listened: bool, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    takes_another_way_than(wrong, dtype, listened, monkeypatch)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("half", "wrong"), [((0.2, 0.1), "fused"), ((0.1, 0.2), "explicit")])
def test_in_half_precision_the_faster_way_is_taken(
    dtype: torch.dtype, half: tuple[float, float], wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with machine_is(machine_with(half=half)):
        takes_another_way_than(wrong, dtype, False, monkeypatch)


def takes_another_way_than(wrong: str, dtype: torch.dtype, listened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    exact = [torch.randn(2, 2, 5, 4, dtype=torch.float64) for _ in range(3)]
    scope = Mask.causal().resolve(5, 5, device=torch.device("cpu"), dtype=torch.float64)
    expected = explicit(*exact, scope, scale=0.5)
    tap = Tap()
    shown: list[Tensor] = []
    if listened:
        tap.register_forward_hook(lambda _m, _i, output: shown.append(output))
    monkeypatch.setattr(module, wrong, unreachable)
    scope = Mask.causal().resolve(5, 5, device=torch.device("cpu"), dtype=dtype)
    result = attend(*(x.to(dtype) for x in exact), scope, scale=0.5, tap=tap)
    assert result.dtype == dtype
    assert len(shown) == listened
    error = (result.double() - expected).abs().max() / expected.abs().max()
    assert error < 8 * torch.finfo(dtype).eps


def test_a_hook_may_replace_the_weights() -> None:
    """The same point serves for editing: with the weights of the first key alone, everybody gets its value."""
    query, key, value = (torch.randn(1, 2, 4, 3) for _ in range(3))
    scope = Mask.everything().resolve(4, 4, device=query.device, dtype=query.dtype)
    tap = Tap()
    tap.register_forward_hook(lambda _m, _i, output: torch.zeros_like(output).index_fill(-1, torch.tensor([0]), 1.0))
    result = attend(query, key, value, scope, scale=1.0, tap=tap)
    assert torch.equal(result, value[:, :, :1].expand(-1, -1, 4, -1))
