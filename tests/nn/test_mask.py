"""Masks against a double loop over queries and keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sublayer.nn.attend import attention_weights, explicit, fused
from sublayer.nn.mask import Mask, ResolvedMask

CPU = torch.device("cpu")


@dataclass
class Case:
    """A mask, and the same as a plain function of (row, query's position, key's position, query's index)."""

    batch: int
    queries: int
    keys: int
    mask: Mask
    allowed: Callable[[int, int, int], bool]
    names: list[str]


@st.composite
def cases(draw: st.DrawFn, *, whole: bool = False) -> Case:
    batch, queries, keys = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 7))
    if whole:
        queries = keys
    numbers = st.lists(st.integers(0, keys), min_size=batch, max_size=batch)
    names = draw(st.lists(st.sampled_from(["causal", "window", "padding", "left", "segments"]), max_size=4))
    mask = Mask.everything()
    rules: list[Callable[[int, int, int], bool]] = []
    for name in names:
        match name:
            case "causal":
                part = Mask.causal()
                rules.append(lambda b, i, j: j <= keys - queries + i)
            case "window":
                size = draw(st.integers(1, 4))
                part = Mask.window(size)
                rules.append(lambda b, i, j, size=size: abs(keys - queries + i - j) < size)
            case "padding":
                lengths = draw(numbers)
                part = Mask.padding(torch.tensor(lengths))
                rules.append(lambda b, i, j, lengths=lengths: j < lengths[b])
            case "left":
                counts = draw(numbers)
                part = Mask.left_padding(torch.tensor(counts))
                rules.append(lambda b, i, j, counts=counts: j >= counts[b])
            case "segments":
                row = st.lists(st.integers(0, 2), min_size=keys, max_size=keys)
                key = draw(st.lists(row, min_size=batch, max_size=batch))
                row = st.lists(st.integers(0, 2), min_size=queries, max_size=queries)
                query = draw(st.lists(row, min_size=batch, max_size=batch))
                part = Mask.segments(torch.tensor(query), torch.tensor(key))
                rules.append(lambda b, i, j, query=query, key=key: query[b][i] == key[b][j])
        mask = mask & part
    return Case(batch, queries, keys, mask, lambda b, i, j: all(rule(b, i, j) for rule in rules), names)


def looped(case: Case) -> Tensor:
    """[B, 1, S, T], by a double loop."""
    return torch.tensor(
        [[[[case.allowed(b, i, j) for j in range(case.keys)] for i in range(case.queries)]] for b in range(case.batch)]
    )


def resolve(mask: Mask, queries: int, keys: int, bias: Tensor | None = None) -> ResolvedMask:
    return mask.resolve(queries, keys, device=CPU, dtype=torch.float64, bias=bias)


def as_tensor(scope: ResolvedMask, shape: torch.Size) -> Tensor:
    return torch.ones(shape, dtype=torch.bool) if scope.allowed is None else scope.allowed.expand(shape)


@given(cases())
def test_against_a_double_loop(case: Case) -> None:
    expected = looped(case)
    scope = resolve(case.mask, case.queries, case.keys)
    assert torch.equal(as_tensor(scope, expected.shape), expected)
    occupied = expected.any(-1, keepdim=True)
    if scope.occupied is None:
        assert occupied.all()
    else:
        assert torch.equal(scope.occupied.expand(occupied.shape), occupied)
    if scope.causal:
        assert torch.equal(expected[0, 0], torch.ones(case.keys, case.keys, dtype=torch.bool).tril())


@given(cases(), st.booleans())
def test_weights_are_the_softmax_of_what_is_allowed(case: Case, batched: bool) -> None:
    bias = torch.randn(*([case.batch] if batched else []), 2, case.queries, case.keys, dtype=torch.float64)
    scope = resolve(case.mask, case.queries, case.keys, bias)
    expected = looped(case).expand(-1, 2, -1, -1)
    scores = torch.randn(case.batch, 2, case.queries, case.keys, dtype=torch.float64, requires_grad=True)
    weights = attention_weights(scores, scope)
    raised = (scores + bias).exp() * expected
    total = raised.sum(-1, keepdim=True)
    torch.testing.assert_close(weights, raised / total.where(total > 0, 1.0))
    weights.square().sum().backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all(), "a query that sees nothing"
    assert scope.added is not None
    added = scope.added.expand(expected.shape)
    assert torch.equal(added[expected], bias.expand(expected.shape)[expected])
    assert (added[~expected] == float("-inf")).all()
    assert not scope.causal, "a kernel that takes causality for granted would forget the bias"


@given(cases(), st.integers(1, 5))
def test_the_last_queries_of_the_whole_are_what_a_cache_asks_for(case: Case, new: int) -> None:
    """Bottom right: the mask for the last queries is the last rows of the mask for all."""
    causal = Mask.causal() & Mask.window(3)
    size = case.keys
    new = min(new, size)
    whole = as_tensor(resolve(causal, size, size), torch.Size((1, 1, size, size)))
    last = as_tensor(resolve(causal, new, size), torch.Size((1, 1, new, size)))
    assert torch.equal(last, whole[:, :, -new:])


def test_one_causal_query_needs_no_tensor() -> None:
    scope = resolve(Mask.causal(), 1, 7)
    assert scope.allowed is None
    assert scope.added is None


@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_conjunction_does_not_matter(case: Case, random) -> None:  # type: ignore[no-untyped-def]
    rules = list(case.mask.rules)
    random.shuffle(rules)
    other = Mask.everything()
    for rule in rules:
        other = Mask((rule,)) & other
    expected = looped(case)
    assert torch.equal(as_tensor(resolve(other, case.queries, case.keys), expected.shape), expected)


@pytest.mark.parametrize("attend", [explicit, fused])
@given(case=cases(), with_bias=st.booleans())
def test_rows_with_nothing_to_attend_to(attend, case: Case, with_bias: bool) -> None:
    """Zeros, finite gradients, and no gradient from what is not allowed."""
    bias = torch.randn(2, case.queries, case.keys, dtype=torch.float64) if with_bias else None
    scope = resolve(case.mask, case.queries, case.keys, bias)
    generator = torch.Generator().manual_seed(0)

    def draw(rows: int) -> Tensor:
        x = torch.randn(case.batch, 2, rows, 4, generator=generator, dtype=torch.float64) * 3
        return x.requires_grad_()

    query, key, value = draw(case.queries), draw(case.keys), draw(case.keys)
    mixed = attend(query, key, value, scope, scale=0.5)
    allowed = looped(case)
    empty = ~allowed.any(-1).expand(-1, 2, -1)
    assert (mixed[empty] == 0).all()
    assert (mixed[~empty] != 0).all()
    gradients = torch.autograd.grad(mixed.square().sum(), (query, key, value))
    for gradient in gradients:
        assert gradient.isfinite().all()
    unseen = ~allowed.any(-2).expand(-1, 2, -1)
    assert (gradients[0][empty] == 0).all()
    assert (gradients[1][unseen] == 0).all()
    assert (gradients[2][unseen] == 0).all()
    assert (gradients[2][~unseen] != 0).any(-1).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_empty_rows_give_zeros_even_where_the_scores_are_very_low(dtype: torch.dtype) -> None:
    """The lowest number of float16 is not very low: with a score below -16 added it is minus infinity."""
    query, key = torch.full((1, 1, 2, 4), 8.0, dtype=dtype), torch.full((1, 1, 3, 4), -8.0, dtype=dtype)
    scope = Mask.padding(torch.tensor([0])).resolve(2, 3, device=CPU, dtype=dtype)
    assert torch.equal(explicit(query, key, key, scope, scale=1.0), torch.zeros_like(query))


@pytest.mark.parametrize("make", [Mask.padding, Mask.left_padding, Mask.segments])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (torch.tensor([True, False]), "torch.bool"),
        (torch.tensor([1.0, 2.0]), "torch.float32"),
        ([1, 2], "list"),
    ],
)
def test_what_is_not_a_count_is_refused(make, given: object, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        make(given)


def test_a_bare_tensor_cannot_be_combined_with_a_mask() -> None:
    with pytest.raises((TypeError, AttributeError)):
        Mask.causal() & torch.ones(3, 3, dtype=torch.bool)  # type: ignore[operator]


@pytest.mark.parametrize("size", [0, -1])
def test_a_window_of_nothing_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"size = {size}"):
        Mask.window(size)
