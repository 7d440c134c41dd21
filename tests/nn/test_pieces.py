"""Attention in pieces: the same numbers and gradients as over every pair, at the cost of those that are allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import sublayer.nn.attend as module
from sublayer.nn import mask as masks
from sublayer.nn import pieces
from sublayer.nn.attend import attend, explicit
from sublayer.nn.mask import Mask, ResolvedMask
from sublayer.nn.pieces import Piece
from sublayer.nn.tap import Tap

CPU = torch.device("cpu")
CLOSE = {torch.float64: {"rtol": 1e-12, "atol": 1e-12}, torch.float32: {"rtol": 2e-5, "atol": 2e-5}}


@contextmanager
def cutting_is_free() -> Iterator[None]:
    """Small masks are cut as large ones are: a call costs as much as one pair does."""
    with patch.object(pieces, "CALL", 1), patch.object(pieces, "SMALL", 4), patch.object(pieces, "SMALLEST", 2):
        yield


@dataclass
class Case:
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Mask
    bias: Tensor | None
    softcap: float | None
    lengths: Tensor | None = None

    def scope(self, dtype: torch.dtype = torch.float64) -> ResolvedMask:
        return self.mask.resolve(
            self.query.shape[2],
            self.key.shape[2],
            device=CPU,
            dtype=dtype,
            bias=None if self.bias is None else self.bias.to(dtype),
            lengths=self.lengths,
        )


@st.composite
def cases(draw: st.DrawFn, *, bias: bool = True) -> Case:
    batch, groups, repeats = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    keys = draw(st.integers(1, 24))
    # As many queries as keys, or fewer: those after a cache.
    queries = draw(st.one_of(st.just(keys), st.integers(1, keys)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    mask = Mask.everything()
    names = draw(
        st.lists(st.sampled_from(["causal", "window", "padding", "left", "segments"]), max_size=4, unique=True)
    )
    for name in names:
        numbers = torch.tensor(draw(st.lists(st.integers(0, keys), min_size=batch, max_size=batch)))
        match name:
            case "causal":
                part = Mask.causal()
            case "window":
                part = Mask.window(draw(st.integers(1, keys)))
            case "padding":
                part = Mask.padding(numbers)
            case "left":
                part = Mask.left_padding(numbers)
            case _:
                part = Mask.segments(torch.stack([draw(segments(keys)) for _ in range(batch)]))
        mask = mask & part
    heads = groups * repeats
    biases = [None, normal(heads, queries, keys), normal(batch, heads, queries, keys)]
    return Case(
        normal(batch, heads, queries, 4),
        normal(batch, groups, keys, 4),
        normal(batch, groups, keys, 4),
        mask,
        draw(st.sampled_from(biases)) if bias else None,
        draw(st.sampled_from([None, 2.0])),
    )


@st.composite
def segments(draw: st.DrawFn, size: int) -> Tensor:
    """Numbers of texts side by side, single tokens among them, padding last or not; or numbers that come again."""
    if draw(st.booleans()):
        return torch.tensor(draw(st.lists(st.integers(0, 2), min_size=size, max_size=size)))
    begins = torch.tensor([False, *draw(st.lists(st.booleans(), min_size=size - 1, max_size=size - 1))])
    number = begins.cumsum(0)
    padding = draw(st.integers(0, size))
    number[size - padding :] = draw(st.sampled_from([-1, 1000]))
    return number


def both(case: Case, dtype: torch.dtype, scope: ResolvedMask) -> list[list[Tensor]]:
    """The result and the gradients of query, key and value: as `attend` has them, and over every pair."""
    found: list[list[Tensor]] = []
    for way in (lambda *a, **k: attend(*a, **k, tap=Tap()), explicit):
        leaves = [x.detach().to(dtype).requires_grad_() for x in (case.query, case.key, case.value)]
        result = way(*leaves, scope, scale=0.7, softcap=case.softcap)
        towards = torch.randn(result.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
        found.append([result, *torch.autograd.grad(result, leaves, towards)])
    return found


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@given(case=cases())
def test_pieces_are_the_whole(dtype: torch.dtype, case: Case) -> None:
    with cutting_is_free():
        ours, whole = both(case, dtype, case.scope(dtype))
    for found, expected in zip(ours, whole, strict=True):
        torch.testing.assert_close(found, expected, **CLOSE[dtype])


@given(cases())
def test_every_query_is_in_one_piece_that_holds_all_it_may_see(case: Case) -> None:
    with cutting_is_free():
        scope = case.scope()
        groups = scope.pieces
    if groups is None:
        return
    batch, _, queries, _ = case.query.shape
    assert sum(batch if group.rows is None else group.rows for group in groups) == batch
    whole = torch.ones(1, dtype=torch.bool) if scope.allowed is None else scope.allowed
    whole = whole.expand(batch, 1, queries, scope.keys)
    row = 0
    for group in groups:
        rows = slice(row, row + (group.rows or batch))
        row = rows.stop
        assert [part.piece.queries.start for part in group.parts] == [
            0,
            *(p.piece.queries.stop for p in group.parts[:-1]),
        ]
        assert group.parts[-1].piece.queries.stop == queries
        for part in group.parts:
            there = whole[rows, :, part.piece.queries]
            inside = torch.zeros(scope.keys, dtype=torch.bool)
            if part.mask is not None:
                inside[part.piece.keys] = True
                small = there[..., part.piece.keys]
                allowed = torch.ones(1, dtype=torch.bool) if part.mask.allowed is None else part.mask.allowed
                assert torch.equal(allowed.expand(small.shape), small)
            assert not there[..., ~inside].any()


def test_queries_that_see_nothing_get_zeros_and_no_gradient() -> None:
    case = Case(*(torch.randn(2, 2, 8, 4, dtype=torch.float64) for _ in range(3)), Mask.causal(), None, None)
    case.mask = Mask.causal() & Mask.left_padding(torch.tensor([8, 5]))
    with cutting_is_free():
        assert case.scope().pieces is not None
        (result, query, *_), _ = both(case, torch.float64, case.scope())
    assert (result[0] == 0).all()
    assert (result[1, :, :5] == 0).all()
    assert (query[0] == 0).all()
    assert result[1, :, 5:].abs().min() > 0


@given(cases(), st.data())
def test_queries_that_are_read_are_the_whole_where_others_are_padding(case: Case, data: st.DataObject) -> None:
    """And the others get finite numbers."""
    batch, _, queries, _ = case.query.shape
    case.lengths = torch.tensor(data.draw(st.lists(st.integers(0, queries), min_size=batch, max_size=batch)))
    read = (torch.arange(queries) < case.lengths.unsqueeze(-1))[:, None, :, None]
    found: list[list[Tensor]] = []
    with cutting_is_free():
        for way in (lambda *a, **k: attend(*a, **k, tap=Tap()), explicit):
            leaves = [x.clone().requires_grad_() for x in (case.query, case.key, case.value)]
            result = way(*leaves, case.scope(), scale=0.7, softcap=case.softcap)
            assert result.isfinite().all()
            towards = torch.randn(result.shape, generator=torch.Generator().manual_seed(1), dtype=result.dtype)
            found.append([result * read, *torch.autograd.grad(result * read, leaves, towards)])
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, **CLOSE[torch.float64])


@pytest.mark.parametrize("mask", [Mask.causal(), Mask.everything()], ids=["decoder", "encoder"])
def test_a_padded_batch_costs_the_squares_of_its_lengths(mask: Mask) -> None:
    lengths = torch.tensor([1024, 512, 512, 128])
    scope = mask.resolve(1024, 1024, device=CPU, dtype=torch.float32, lengths=lengths)
    scope = (
        scope
        if mask.rules
        else (Mask.padding(lengths)).resolve(1024, 1024, device=CPU, dtype=torch.float32, lengths=lengths)
    )
    assert scope.pieces is not None
    assert [group.rows for group in scope.pieces] == [1, 2, 1]
    done = [sum(p.piece.pairs for p in group.parts if p.mask is not None) for group in scope.pieces]
    assert done == [size**2 // (2 if mask.rules else 1) for size in (1024, 512, 128)]


@pytest.mark.parametrize("mask", [Mask.causal(), Mask.causal() & Mask.window(3)])
@pytest.mark.parametrize("softcap", [None, 2.0], ids=["fused", "explicit"])
def test_dropout_in_pieces_drops_weights_and_keeps_their_mean(mask: Mask, softcap: float | None) -> None:
    """With values of one, a query's result is the sum of its weights that are left, each over 1 - p."""
    torch.manual_seed(0)
    size, p = 64, 0.25
    query, key = torch.randn(64, 4, size, 4), torch.randn(64, 4, size, 4)
    value = torch.ones(64, 4, size, 4)
    with cutting_is_free():
        scope = (mask & packed(24, 40)).resolve(size, size, device=CPU, dtype=torch.float32)
        assert scope.pieces is not None
        found = attend(query, key, value, scope, scale=0.1, softcap=softcap, dropout=p, tap=Tap())
    assert scope.allowed is not None
    seen = scope.allowed.sum(-1).flatten()
    assert seen[0] == seen[24] == 1
    alone = found[:, :, [0, 24], 0]
    # A weight that stands alone is left out or 1 / (1 - p), nothing between.
    assert ((alone == 0) | ((alone - 1 / (1 - p)).abs() < 1e-5)).all()
    assert ((alone == 0).float().mean() - p).abs() < 4 * (p * (1 - p) / alone.numel()) ** 0.5
    # Five deviations of the mean of so many weights, at most.
    assert (found[..., 0].mean((0, 1)) - 1).abs().max() < 5 * (p / (1 - p) / 256) ** 0.5
    # Texts do not drop the same weights, and neither do rows.
    assert not torch.equal(found[0], found[1])


def packed(*lengths: int) -> Mask:
    return Mask.segments(torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))[None])


def pairs(mask: Mask, queries: int, keys: int | None = None) -> int | None:
    """How many pairs a row's pieces compute; None where the whole is computed."""
    keys = queries if keys is None else keys
    groups = mask.resolve(queries, keys, device=CPU, dtype=torch.float32).pieces
    if groups is None:
        return None
    return sum(
        (p.piece.queries.stop - p.piece.queries.start) * (p.piece.keys.stop - p.piece.keys.start)
        for group in groups
        for p in group.parts
        if p.mask is not None
    )


def test_packed_rows_cost_what_their_texts_cost() -> None:
    assert pairs(packed(*[300] * 27) & Mask.causal(), 8100) == 27 * 300**2
    assert pairs(packed(*[300] * 27), 8100) == 27 * 300**2


def test_many_small_texts_share_a_call() -> None:
    size = 2048
    found = pairs(packed(*[4] * (size // 4)) & Mask.causal(), size)
    assert found is not None
    assert found <= size * 256


@pytest.mark.parametrize("mask", [Mask.window(256), Mask.window(256) & Mask.causal()])
def test_a_window_reads_two_windows_of_keys_at_most(mask: Mask) -> None:
    size = 8192
    found = pairs(mask, size)
    wide = 256 if len(mask.rules) == 2 else 511
    assert found is not None
    assert found <= size * 2 * wide


def test_padded_rows_cost_what_their_keys_cost() -> None:
    lengths = torch.tensor([1024, 512, 128])
    assert pairs(Mask.padding(lengths), 1024) == 1024 * int(lengths.sum())
    assert pairs(Mask.left_padding(1024 - lengths) & Mask.causal(), 1024) == int((lengths**2).sum())


@pytest.mark.parametrize(
    ("mask", "queries", "keys"),
    [
        (Mask.everything(), 4096, 4096),
        (Mask.causal(), 4096, 4096),
        (Mask.causal(), 1, 4096),
        (packed(8, 8, 8, 8) & Mask.causal(), 32, 32),
        (Mask.segments(torch.tensor([[0, 1] * 1024])), 2048, 2048),
    ],
)
def test_what_gains_nothing_is_not_cut(mask: Mask, queries: int, keys: int) -> None:
    assert pairs(mask, queries, keys) is None


def test_a_window_that_reaches_everything_is_causality_alone() -> None:
    """The kernel then needs no mask, and skips what is not allowed."""
    scope = (Mask.window(4096) & Mask.causal()).resolve(4096, 4096, device=CPU, dtype=torch.float32)
    assert scope.pieces is not None
    (group,) = scope.pieces
    (part,) = group.parts
    assert part.mask is not None
    assert part.mask.causal


def test_pieces_that_look_alike_share_their_mask() -> None:
    scope = (Mask.causal() & Mask.window(256)).resolve(8192, 8192, device=CPU, dtype=torch.float32)
    assert scope.pieces is not None
    (group,) = scope.pieces
    assert len({id(part.mask) for part in group.parts}) < 8 < len(group.parts)


def test_nothing_of_the_size_of_the_square_is_made() -> None:
    """Neither the boolean mask nor what is added to the scores, where no one reads them."""
    for mask in (packed(*[300] * 27) & Mask.causal(), Mask.causal(), Mask.causal() & Mask.window(256)):
        scope = mask.resolve(8100, 8100, device=CPU, dtype=torch.float32)
        x = torch.randn(1, 1, 8100, 4)
        attend(x, x, x, scope, scale=1.0, tap=Tap())
        assert not {"allowed", "added", "occupied"} & vars(scope).keys()


def test_a_tap_sees_the_weights_of_every_pair() -> None:
    case = Case(*(torch.randn(1, 2, 32, 4, dtype=torch.float64) for _ in range(3)), packed(8, 24), None, None)
    shown: list[Tensor] = []
    tap, scope = Tap(), case.scope()
    with cutting_is_free():
        assert scope.pieces is not None
        unseen = attend(case.query, case.key, case.value, scope, scale=1.0, tap=tap)
        tap.register_forward_hook(lambda _m, _i, output: shown.append(output))
        seen = attend(case.query, case.key, case.value, scope, scale=1.0, tap=tap)
    torch.testing.assert_close(unseen, seen, rtol=1e-12, atol=1e-12)
    assert shown[0].shape == (1, 2, 32, 32)
    assert (shown[0][..., :8, 8:] == 0).all()


def test_a_trained_bias_gets_its_gradient() -> None:
    bias = torch.randn(2, 16, 16, dtype=torch.float64).requires_grad_()
    query, key, value = (torch.randn(1, 2, 16, 4, dtype=torch.float64) for _ in range(3))
    with cutting_is_free():
        scope = packed(8, 8).resolve(16, 16, device=CPU, dtype=torch.float64, bias=bias)
        assert scope.pieces is None, "each piece of the bias would have a gradient as large as all of it"
        ways = (
            attend(query, key, value, scope, scale=0.5, tap=Tap()),
            explicit(query, key, value, scope, scale=0.5),
        )
    gradients = [torch.autograd.grad(result.square().sum(), bias)[0] for result in ways]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-12)


def test_queries_side_by_side_on_one_source_take_the_whole_mask() -> None:
    """In a beam's cross-attention there are more queries than the mask was resolved for."""
    lengths = torch.tensor([3, 9])
    key, value = torch.randn(2, 2, 9, 4, dtype=torch.float64), torch.randn(2, 2, 9, 4, dtype=torch.float64)
    query = torch.randn(2, 2, 12, 4, dtype=torch.float64)
    with cutting_is_free():
        scope = Mask.padding(lengths).resolve(4, 9, device=CPU, dtype=torch.float64)
        found = attend(query, key, value, scope, scale=0.5, tap=Tap())
    torch.testing.assert_close(found, explicit(query, key, value, scope, scale=0.5), rtol=1e-12, atol=1e-12)


def one_key_fewer(piece: Piece) -> Piece:
    return Piece(piece.queries, slice(piece.keys.start, max(piece.keys.start + 1, piece.keys.stop - 1)))


def one_key_later(piece: Piece) -> Piece:
    return Piece(piece.queries, slice(piece.keys.start + (len(range(*piece.keys.indices(999))) > 1), piece.keys.stop))


@pytest.mark.parametrize("change", [one_key_fewer, one_key_later])
def test_a_wrong_piece_fails_the_law(change: Callable[[Piece], Piece], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = pieces.cut
    monkeypatch.setattr(pieces, "cut", lambda *a: [change(p) if p.keys.stop else p for p in plain(*a)])
    torch.manual_seed(0)
    case = Case(*(torch.randn(1, 2, 32, 4, dtype=torch.float64) for _ in range(3)), packed(8, 24), None, None)
    with cutting_is_free():
        ours, whole = both(case, torch.float64, case.scope())
    assert (ours[0] - whole[0]).abs().max() > 1e-3


def test_a_forgotten_inner_mask_fails_the_law(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks.Spans, "span", lambda self, grid: (None, None))
    torch.manual_seed(0)
    mask = Mask.causal() & Mask.window(4)
    case = Case(*(torch.randn(1, 2, 32, 4, dtype=torch.float64) for _ in range(3)), mask, None, None)
    with cutting_is_free():
        ours, whole = both(case, torch.float64, case.scope())
    assert (ours[0] - whole[0]).abs().max() > 1e-3


@given(st.data())
def test_cut_covers_any_intervals(data: st.DataObject) -> None:
    """Whatever the intervals are, moving backwards too."""
    size = data.draw(st.integers(1, 30))
    numbers = st.lists(st.integers(0, size), min_size=size, max_size=size)
    begin, end = np.array(data.draw(numbers)), np.array(data.draw(numbers))
    with cutting_is_free():
        found = pieces.cut(begin, end)
    assert [p.queries.start for p in found] == [0, *(p.queries.stop for p in found[:-1])]
    assert found[-1].queries.stop == size
    for piece in found:
        for query in range(piece.queries.start, piece.queries.stop):
            if begin[query] < end[query]:
                assert piece.keys.start <= begin[query]
                assert end[query] <= piece.keys.stop


def test_half_precision_and_a_cap_go_in_pieces_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the products are written down, so they are of the pieces, not of the square."""
    sizes: list[int] = []
    plain = module.explicit

    def watched(query: Tensor, key: Tensor, *a: object, **k: object) -> Tensor:
        sizes.append(query.shape[2] * key.shape[2])
        return plain(query, key, *a, **k)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "explicit", watched)
    x = torch.randn(1, 1, 600, 4)
    scope = packed(300, 300).resolve(600, 600, device=CPU, dtype=torch.float32)
    attend(x, x, x, scope, scale=1.0, softcap=3.0, tap=Tap())
    assert sizes == [300 * 300] * 2
