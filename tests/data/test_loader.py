"""Tensors of a batch against plain lists, and a loader that goes on from three numbers as though nothing had been."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sublayer.config import Batching, Decoding, Subwords
from sublayer.data.batch import IGNORE, Batch
from sublayer.data.encoding import EncodedPairs, encode
from sublayer.data.loader import Cursor, Loader, Share, validation
from sublayer.data.report import Report
from sublayer.data.sources import Pairs
from sublayer.errors import DataError
from sublayer.text import PairAffixes, Tokenizer

WORDS = ("go", "stay", "the house", "a small dog", "canción", "perdió", "42 apples", "sees Tom")
SOURCES = [" ".join(WORDS[(n * step) % len(WORDS)] for step in range(1, 2 + n % 5)) for n in range(60)]
TARGETS = [" ".join(WORDS[(n + step) % len(WORDS)] for step in range(1, 2 + n % 3)) for n in range(60)]
PAIRS = Pairs(list(zip(SOURCES, TARGETS, strict=True)), Report(60, 60), list(range(11, 71)))
TOKENIZER = Tokenizer.train(SOURCES + TARGETS, Subwords(vocab_size=320))
AFFIXES = PairAffixes.of(TOKENIZER, Decoding())
ENCODED = encode(PAIRS, TOKENIZER, max_length=64, affixes=AFFIXES)
BATCHING = Batching(tokens=200)


def same(one: Batch, other: Batch) -> bool:
    tensors = ("source", "source_lengths", "target_in", "target_out", "target_lengths")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in tensors)


def check(batch: Batch, encoded: EncodedPairs) -> None:
    """Row by row against the tokenizer's own lists."""
    ids = [
        (TOKENIZER.encode([SOURCES[row]])[0], TOKENIZER.encode([TARGETS[row]])[0]) for row in encoded.rows[batch.rows]
    ]
    width, height = (max(len(pair[side]) for pair in ids) + 1 for side in (0, 1))
    for place, (source, target) in enumerate(ids):
        assert batch.source[place].tolist() == [*source, 2] + [0] * (width - len(source) - 1)
        assert batch.target_in[place].tolist() == [1, *target] + [0] * (height - len(target) - 1)
        assert batch.target_out[place].tolist() == [*target, 2] + [IGNORE] * (height - len(target) - 1)
        assert batch.source_lengths[place] == len(source) + 1
        assert batch.target_lengths[place] == len(target) + 1
    assert batch.targets == sum(len(target) + 1 for _, target in ids)
    assert isinstance(batch.targets, int)
    assert batch.source.dtype == batch.target_in.dtype == batch.target_out.dtype == torch.int64


def test_batches_hold_what_the_tokenizer_says() -> None:
    seen: list[int] = []
    for batch in validation(ENCODED, BATCHING):
        check(batch, ENCODED)
        seen.extend(batch.rows.tolist())
        rows, columns = len(batch.rows), batch.source.shape[1] + batch.target_in.shape[1]
        assert rows * columns <= BATCHING.tokens
    assert sorted(seen) == list(range(len(ENCODED)))


@given(rows=st.lists(st.integers(0, len(ENCODED) - 1), min_size=1, max_size=9))
def test_any_rows_in_any_order_make_a_batch(rows: list[int]) -> None:
    check(ENCODED.collate(torch.tensor(rows).numpy()), ENCODED)


def test_lengths_count_the_end_marker() -> None:
    assert ENCODED.source_lengths.tolist() == [len(ids) + 1 for ids in TOKENIZER.encode(SOURCES)]
    assert ENCODED.target_lengths.tolist() == [len(ids) + 1 for ids in TOKENIZER.encode(TARGETS)]


def test_pairs_over_the_length_are_left_out_and_counted_never_cut() -> None:
    limit = 9
    encoded = encode(PAIRS, TOKENIZER, max_length=limit, affixes=AFFIXES)
    lengths = list(zip(ENCODED.source_lengths.tolist(), ENCODED.target_lengths.tolist()))
    fits = [row for row, pair in enumerate(lengths) if max(pair) <= limit]
    long = [row for row, pair in enumerate(lengths) if max(pair) > limit]
    assert fits
    assert long
    assert any(max(pair) == limit for pair in lengths), "the limit itself is not tried"
    assert encoded.rows.tolist() == fits
    (dropped,) = encoded.report.dropped
    assert (dropped.reason, dropped.count) == ("over 9 tokens a side", len(long))
    assert list(dropped.lines) == [11 + row for row in long[:5]]
    assert encoded.report.kept == len(encoded) == len(fits)
    for batch in validation(encoded, BATCHING):
        check(batch, encoded)


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(DataError, match="none of 60 pairs has at most 1 tokens"):
        encode(PAIRS, TOKENIZER, max_length=1, affixes=AFFIXES)


@pytest.mark.parametrize("buckets", [True, False])
def test_from_any_cursor_the_loader_goes_on_as_though_never_stopped(buckets: bool) -> None:
    batching = Batching(tokens=200, buckets=buckets)
    whole = list(islice(Loader(ENCODED, batching, seed=3).batches(), 40))
    assert whole[-1][0].epoch >= 1
    before = Cursor()
    for place, (after, batch) in enumerate(whole):
        if place % 5 == 0:
            rest = list(islice(Loader(ENCODED, batching, seed=3).batches(before), 3))
            expected = whole[place : place + 3]
            assert [cursor for cursor, _ in rest] == [cursor for cursor, _ in expected]
            assert all(same(one, other) for (_, one), (_, other) in zip(rest, expected))
        assert batch.rows.size
        before = after


def test_an_epoch_holds_every_pair_once_and_then_the_next_begins() -> None:
    loader = Loader(ENCODED, BATCHING, seed=3)
    count = len(loader.plan(0))
    stream = loader.batches()
    first = [next(stream) for _ in range(count)]
    assert sorted(row for _, batch in first for row in batch.rows.tolist()) == list(range(len(ENCODED)))
    assert [cursor for cursor, _ in first] == [*(Cursor(0, step) for step in range(1, count)), Cursor(1, 0)]
    # Asking for another epoch's plan meanwhile changes nothing.
    loader.plan(7)
    assert same(next(stream)[1], next(Loader(ENCODED, BATCHING, seed=3).batches(Cursor(1, 0)))[1])


def test_the_end_of_an_epoch_is_the_start_of_the_next() -> None:
    loader = Loader(ENCODED, BATCHING, seed=3)
    end = Cursor(0, len(loader.plan(0)))
    assert same(next(loader.batches(end))[1], next(loader.batches(Cursor(1, 0)))[1])
    with pytest.raises(DataError, match="there is no batch"):
        next(loader.batches(Cursor(0, end.step + 1)))


def test_a_batch_moves_whole() -> None:
    _, batch = next(Loader(ENCODED, BATCHING, seed=3).batches())
    moved = batch.to("meta")
    names = ("source", "source_lengths", "target_in", "target_out", "target_lengths")
    assert {getattr(moved, name).device.type for name in names} == {"meta"}
    assert moved.targets == batch.targets


@pytest.mark.parametrize("readers", [1, 2, 3, 7])
def test_readers_share_the_rows_of_every_batch(readers: int) -> None:
    """However many they are: together they have each batch of one reader, every row once; who gets none is told so."""
    count = len(Loader(ENCODED, BATCHING, seed=4).plan(0)) + 2
    whole = list(islice(Loader(ENCODED, BATCHING, seed=4).batches(), count))
    parts = [
        list(islice(Loader(ENCODED, BATCHING, 4, Share(reader, readers)).batches(), count)) for reader in range(readers)
    ]
    none = 0
    for (cursor, batch), *theirs in zip(whole, *parts, strict=True):
        assert batch is not None
        assert {each for each, _ in theirs} == {cursor}
        shares = [share for _, share in theirs if share is not None]
        assert sorted(row for share in shares for row in share.rows.tolist()) == sorted(batch.rows.tolist())
        assert sum(share.targets for share in shares) == batch.targets
        none += readers - len(shares)
    assert (none > 0) == (readers > min(len(batch.rows) for _, batch in whole if batch is not None))
