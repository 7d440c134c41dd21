"""Cutting and packing: nothing is dropped, nothing is a target twice, no row is too long."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sublayer.data.batch import IGNORE
from sublayer.data.examples.packed import PackedDocuments, PackedRows
from sublayer.data.packing import cut, pack
from sublayer.data.ragged import Ragged
from sublayer.data.report import Report

SEEDS = st.one_of(st.none(), st.integers(0, 2**32))


def generator(seed: int | None) -> np.random.Generator | None:
    return None if seed is None else np.random.default_rng(seed)


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=30),
    room=st.integers(1, 20),
    share=st.floats(0, 1),
    seed=SEEDS,
)
def test_pieces_cover_each_text_once_with_the_context_that_the_stride_leaves(
    lengths: list[int], room: int, share: float, seed: int | None
) -> None:
    stride = 1 + int(share * (room - 1))
    pieces = cut(np.array(lengths), room, stride, generator(seed))
    assert (pieces.lengths <= room).all()
    for text, length in enumerate(lengths):
        own = np.flatnonzero(pieces.text == text)
        begin, fresh, end = (each[own].tolist() for each in (pieces.begin, pieces.fresh, pieces.end))
        assert [place for a, b in zip(fresh, end) for place in range(a, b)] == list(range(length))
        if length <= room:
            assert (begin, end) == ([0], [length])
        # All the context that there is room for, of what has been.
        assert all(a == max(0, f - (room - stride)) for a, f in zip(begin[1:], fresh[1:]))
        # Every piece but the first and the last goes on by the stride.
        assert all(b - a == stride for a, b in pairwise(end[:-1]))


@given(data=st.data(), room=st.integers(1, 30), seed=SEEDS)
def test_every_piece_is_in_one_row_that_is_long_enough(data: st.DataObject, room: int, seed: int | None) -> None:
    lengths = np.array(data.draw(st.lists(st.integers(1, room), max_size=60)), dtype=np.int64)
    rows = pack(lengths, room, generator(seed))
    assert sorted(piece for row in rows for piece in row.tolist()) == list(range(len(lengths)))
    assert all(lengths[row].sum() <= room for row in rows)
    # Best fit: no two rows could be one.
    totals = sorted(int(lengths[row].sum()) for row in rows)
    assert all(a + b > room for a, b in pairwise(totals))


def test_little_is_wasted() -> None:
    lengths = np.minimum(128, np.random.default_rng(0).geometric(1 / 30, 5000))
    rows = pack(lengths, 128, np.random.default_rng(1))
    assert lengths.sum() / (128 * len(rows)) > 0.99


# --- documents ---------------------------------------------------------------------------------------------------

PAD, START, END = 0, 1, 2


def documents(lengths: list[int], room: int, stride: int, evaluation_stride: int | None = None) -> PackedDocuments:
    """Documents of tokens that occur once each, so that every place is known by its token."""
    ids = iter(range(10, 100_000))
    rows = [[START, *(next(ids) for _ in range(length)), END] for length in lengths]
    report = Report(len(rows), len(rows), noun="documents")
    return PackedDocuments(Ragged.of(rows), room, stride, evaluation_stride or stride, PAD, report)


def pairs_of(epoch: PackedRows, order: np.ndarray) -> list[tuple[int, int]]:
    """Every (token, next token) that is learned, after checking each row."""
    found: list[tuple[int, int]] = []
    sizes = epoch.source_lengths
    for rows in np.array_split(order, max(1, len(order) // 3)):
        batch = epoch.collate(rows)
        tokens, target = batch.tokens.numpy(), batch.target.numpy()
        assert tokens.shape == target.shape
        assert batch.targets == (target != IGNORE).sum()
        segments = np.zeros_like(tokens) if batch.segments is None else batch.segments.numpy()
        for row in range(len(rows)):
            real = int(batch.lengths[row])
            assert real == sizes[rows[row]]
            assert (target[row, real:] == IGNORE).all()
            assert (tokens[row, real:] == PAD).all()
            if batch.segments is not None:
                assert not set(segments[row, real:]) & set(segments[row, :real])
            for segment in set(segments[row, :real].tolist()):
                inside = np.flatnonzero(segments[row, :real] == segment)
                assert (np.diff(inside) == 1).all()
                own = tokens[row, inside]
                # The tokens of one document follow each other.
                assert all(b == a + 1 for a, b in pairwise(own.tolist()) if a >= 10)
                asked = target[row, inside] != IGNORE
                assert asked[-1]
                # Context stands before what is asked, never behind.
                assert not (np.diff(asked.astype(int)) < 0).any()
                found += zip(own[asked].tolist(), target[row, inside][asked].tolist())
    return found


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    room=st.integers(2, 16),
    share=st.floats(0, 1),
    number=st.integers(0, 3),
)
def test_every_token_is_predicted_once_in_an_epoch(lengths: list[int], room: int, share: float, number: int) -> None:
    made = documents(lengths, room, 1 + int(share * (room - 1)))
    expected: list[tuple[int, int]] = []
    for row in range(len(made.texts)):
        expected += pairwise(made.texts[row].tolist())
    for epoch in (made.epoch(3, number), made.fixed()):
        assert sorted(pairs_of(epoch, np.arange(len(epoch.packed)))) == sorted(expected)


def test_an_epoch_is_a_pure_function_of_seed_and_number() -> None:
    made = documents([5, 70, 9, 33, 2, 41], 16, 12)

    def content(seed: int, number: int) -> list[list[int]]:
        epoch = made.epoch(seed, number)
        return epoch.collate(np.arange(len(epoch.packed))).tokens.tolist()

    assert content(1, 2) == content(1, 2)
    assert len({str(content(*which)) for which in ((1, 0), (1, 1), (2, 0), (1, 2))}) == 4


def test_a_document_that_fits_is_not_cut() -> None:
    made = documents([7] * 30, 16, 16)
    for number in range(3):
        epoch = made.epoch(1, number)
        assert len(epoch.pieces) == 30
        assert {int(total) for total in epoch.source_lengths} == {16}


@pytest.mark.parametrize("stride", [1, 4, 16])
def test_evaluation_gives_the_context_that_its_stride_says(stride: int) -> None:
    made = documents([100], 16, 16, stride)
    epoch = made.fixed()
    for piece in range(1, len(epoch.pieces)):
        assert epoch.pieces.fresh[piece] - epoch.pieces.begin[piece] == 16 - stride
