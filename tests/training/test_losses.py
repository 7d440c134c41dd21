"""The loss against torch's own cross-entropy: value and every gradient, however it is cut into pieces."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from machines import ONE_DNN_FASTER, TORCH_FASTER
from sublayer.fast import fastest_products
from sublayer.fast.machine import machine_is
from sublayer.fast.products import Products
from sublayer.tasks import losses
from sublayer.tasks.losses import CrossEntropy

PAD, DIM, VOCABULARY = 0, 6, 11


def output(bias: bool = True, dtype: torch.dtype = torch.float64) -> nn.Linear:
    return nn.Linear(DIM, VOCABULARY, bias=bias, dtype=dtype)


def batch(rows: int = 3, length: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Hidden states, and targets of which some are padding, at ends and between."""
    hidden = torch.randn(rows, length, DIM, dtype=dtype, requires_grad=True)
    target = torch.randint(1, VOCABULARY, (rows, length))
    target[0, 2:] = PAD
    target[-1, 1] = PAD
    return hidden, target


def theirs(layer: nn.Linear, hidden: Tensor, target: Tensor, smoothing: float, tokens: int) -> Tensor:
    logits = layer(hidden).flatten(0, 1)
    summed = F.cross_entropy(logits, target.flatten(), ignore_index=PAD, label_smoothing=smoothing, reduction="sum")
    return summed / tokens


def gradients(loss: Tensor, layer: nn.Linear, hidden: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [hidden, *layer.parameters()]))


@pytest.mark.parametrize("piece", [1, 2 * VOCABULARY, 5 * VOCABULARY - 1, 2**21])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("upstream", [1.0, -3.5])
def test_value_and_gradients_are_those_of_torch(piece: int, smoothing: float, bias: bool, upstream: float) -> None:
    layer, (hidden, target) = output(bias), batch()
    ours = CrossEntropy(smoothing, PAD, piece)(layer, hidden, target, tokens=7)
    expected = theirs(layer, hidden, target, smoothing, tokens=7)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0)
    for found, wanted in zip(
        gradients(ours * upstream, layer, hidden), gradients(expected * upstream, layer, hidden), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("rows", [3, 127, 128, 300, 10_000])
def test_many_targets_in_pieces_that_hold_no_more_logits_than_they_may(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, (hidden, target) = output(True), batch(rows=60, length=11)
    made: list[int] = []

    def watched(states: Tensor, matrix: Tensor) -> Products:
        by = fastest_products(states, matrix)

        def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            made.append(len(x))
            return by.forward(x, weight, bias)

        return by._replace(forward=forward)

    monkeypatch.setattr(losses, "fastest_products", watched)
    ours = CrossEntropy(0.1, PAD, rows * VOCABULARY)(layer, hidden, target, tokens=7)
    expected = theirs(layer, hidden, target, 0.1, tokens=7)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0)
    for found, wanted in zip(gradients(ours, layer, hidden), gradients(expected, layer, hidden), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-13)
    assert max(made) <= rows
    if rows >= losses.ROWS:
        assert all(count % losses.ROWS == 0 for count in made)


@pytest.mark.parametrize("piece", [1, 2**21])
def test_a_vocabulary_so_large_that_a_few_rows_are_a_piece(piece: int) -> None:
    layer = nn.Linear(DIM, 70_001, dtype=torch.float64)
    hidden, target = batch(rows=3)
    ours = CrossEntropy(0.1, PAD, piece)(layer, hidden, target, tokens=7)
    expected = theirs(layer, hidden, target, 0.1, tokens=7)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0)
    for found, wanted in zip(gradients(ours, layer, hidden), gradients(expected, layer, hidden), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_logits_of_ten_thousand(dtype: torch.dtype, smoothing: float) -> None:
    """Right where the target is the best token, where it is the worst, and where others are as good."""
    layer = output(dtype=dtype)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([-1e4, 1e4, 1e4, 0, 5e3, -1e4, 1, -1, 2, 3, 4], dtype=dtype))
    hidden = torch.randn(1, 4, DIM, dtype=dtype, requires_grad=True)
    target = torch.tensor([[1, 5, 3, 2]])
    ours = CrossEntropy(smoothing, PAD)(layer, hidden, target, tokens=4)
    exact = copy.deepcopy(layer).double()
    expected = theirs(exact, wide := hidden.detach().double().requires_grad_(), target, smoothing, tokens=4)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-6, atol=0)
    for found, wanted in zip(gradients(ours, layer, hidden), gradients(expected, exact, wide), strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-7)


def test_a_rare_target_keeps_its_loss_where_its_probability_is_zero() -> None:
    layer = output(dtype=torch.float32)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([0.0, 300.0] + [0.0] * 9))
    loss = CrossEntropy(0.0, PAD)(layer, torch.zeros(1, 1, DIM), torch.tensor([[4]]), tokens=1)
    assert loss.item() == pytest.approx(300.0)


def test_parts_of_a_step_add_up_to_the_whole() -> None:
    layer, (hidden, target) = output(), batch(rows=6)
    tokens = int((target != PAD).sum())
    loss = CrossEntropy(0.1, PAD, piece=3 * VOCABULARY)
    whole = loss(layer, hidden, target, tokens)
    parts = [loss(layer, h, t, tokens) for h, t in zip(hidden.split([1, 3, 2]), target.split([1, 3, 2]), strict=True)]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-12, atol=0)
    for found, wanted in zip(gradients(sum(parts), layer, hidden), gradients(whole, layer, hidden), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-13)


def test_only_padding_gives_zero_and_zero_gradients() -> None:
    layer, (hidden, target) = output(), batch()
    loss = CrossEntropy(0.1, PAD)(layer, hidden, torch.full_like(target, PAD), tokens=3)
    assert loss.item() == 0.0
    assert all(not found.any() for found in gradients(loss, layer, hidden))


def test_without_gradients_the_value_is_the_same_and_nothing_is_kept() -> None:
    layer, (hidden, target) = output(), batch()
    loss = CrossEntropy(0.1, PAD)
    with torch.no_grad():
        value = loss(layer, hidden, target, tokens=7)
    assert not value.requires_grad
    assert torch.equal(value, loss(layer, hidden, target, tokens=7))


def test_a_weight_that_is_the_embedding_too_gets_both_gradients() -> None:
    layer, (_, target) = output(bias=False), batch()
    both: list[Tensor] = []
    for ours in (True, False):
        hidden = F.embedding(target, layer.weight).cumsum(dim=1)  # [B, T, D]
        loss = (
            CrossEntropy(0.1, PAD)(layer, hidden, target, 7) if ours else theirs(layer, hidden, target, 0.1, tokens=7)
        )
        both.append(torch.autograd.grad(loss, layer.weight)[0])
    torch.testing.assert_close(both[0], both[1], rtol=1e-10, atol=1e-13)


def test_under_bfloat16_autocast_it_is_close_to_float32() -> None:
    layer, (hidden, target) = output(dtype=torch.float32), batch(rows=40, dtype=torch.float32)
    tokens = int((target != PAD).sum())
    exact = CrossEntropy(0.1, PAD)(layer, hidden, target, tokens)
    with torch.autocast("cpu", torch.bfloat16):
        ours = CrossEntropy(0.1, PAD)(layer, hidden, target, tokens)
    assert ours.dtype == torch.float32
    assert not torch.equal(ours, exact)  # so the products were taken in bfloat16
    torch.testing.assert_close(ours, exact, rtol=2e-3, atol=0)
    for found, wanted in zip(gradients(ours, layer, hidden), gradients(exact, layer, hidden), strict=True):
        assert found.dtype == torch.float32
        assert ((found - wanted).norm() / wanted.norm()).item() < 1e-2


@pytest.mark.parametrize("frozen", ["nothing", "hidden", "weight", "bias"])
@pytest.mark.parametrize("piece", [2**16, 2**23])
def test_in_float32_at_a_size_that_goes_through_one_dnn(frozen: str, piece: int) -> None:
    """Against float64; what is frozen gets no gradient."""
    dim, vocabulary, tokens = 48, 300, 330
    layer = nn.Linear(dim, vocabulary)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    hidden = torch.randn(11, 30, dim).requires_grad_()
    target = torch.randint(1, vocabulary, (11, 30))
    exact, wide = copy.deepcopy(layer).double(), hidden.detach().double().requires_grad_()
    leaves = {"hidden": (hidden, wide), "weight": (layer.weight, exact.weight), "bias": (layer.bias, exact.bias)}
    if frozen != "nothing":
        leaves.pop(frozen)[0].requires_grad_(False)
    with machine_is(ONE_DNN_FASTER):
        ours = CrossEntropy(0.1, PAD, piece)(layer, hidden, target, tokens)
    expected = theirs(exact, wide, target, 0.1, tokens)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-6, atol=0)
    found = torch.autograd.grad(ours, [mine for mine, _ in leaves.values()])
    wanted = torch.autograd.grad(expected, [other for _, other in leaves.values()])
    for mine, other in zip(found, wanted, strict=True):
        assert ((mine - other).abs().max() / other.abs().max()).item() < 1e-5
    with machine_is(TORCH_FASTER):
        plain = CrossEntropy(0.1, PAD, piece)(layer, hidden, target, tokens)
    torch.testing.assert_close(plain, ours, rtol=1e-6, atol=0)
