"""The cache against lists of lists: random sequences of everything that decoding does to it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sublayer.errors import InputError
from sublayer.models import DecoderState
from sublayer.models.source import Source
from sublayer.nn.cache import KeyValueCache

LAYERS, HEADS, WIDTH = 2, 2, 3


def make(rows: int, capacity: int) -> KeyValueCache:
    return KeyValueCache(
        layers=LAYERS,
        rows=rows,
        heads=HEADS,
        capacity=capacity,
        width=WIDTH,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


class Lists:
    """What a cache means: for each layer and row, a list of (key, value), one for each position."""

    def __init__(self, rows: int) -> None:
        self.held: list[list[list[tuple[Tensor, Tensor]]]] = [[[] for _ in range(rows)] for _ in range(LAYERS)]

    def append(self, layer: int, key: Tensor, value: Tensor) -> None:
        for row, held in enumerate(self.held[layer]):
            held.extend((key[row, :, at], value[row, :, at]) for at in range(key.shape[2]))

    def reorder(self, rows: list[int]) -> None:
        self.held = [[list(layer[row]) for row in rows] for layer in self.held]

    def truncate(self, length: int) -> None:
        self.held = [[row[:length] for row in layer] for layer in self.held]


def append(cache: KeyValueCache, lists: Lists, count: int, generator: torch.Generator) -> None:
    """Append to both, and compare everything that every layer sees."""
    rows = cache.buffer.shape[2]
    cache.require_room(count)
    for layer in range(LAYERS):
        key, value = (torch.randn(rows, HEADS, count, WIDTH, generator=generator) for _ in range(2))
        keys, values = cache.layer(layer).append(key, value)
        lists.append(layer, key, value)
        expected = lists.held[layer]
        assert torch.equal(keys, torch.stack([torch.stack([k for k, _ in row], dim=1) for row in expected]))
        assert torch.equal(values, torch.stack([torch.stack([v for _, v in row], dim=1) for row in expected]))
    cache.advance(count)


def append_by_table(cache: KeyValueCache, lists: Lists, count: int, generator: torch.Generator) -> None:
    """As the engine appends: to a row's own places, reading through a table of rows."""
    table = cache.use_rows(count).long()
    stop, heads = cache.length + count, torch.arange(HEADS)[:, None]
    for layer in range(LAYERS):
        key, value = (torch.randn(table.shape[0], HEADS, count, WIDTH, generator=generator) for _ in range(2))
        cache.buffer[layer, :, :, :, cache.length : stop] = torch.stack([key, value])
        lists.append(layer, key, value)
        held = cache.buffer[layer][:, table[:, None, :stop], heads, torch.arange(stop)]
        expected = lists.held[layer]
        for part in range(2):
            assert torch.equal(held[part], torch.stack([torch.stack([at[part] for at in row], 1) for row in expected]))
    cache.advance(count)


@given(st.data())
def test_any_sequence_of_operations(data: st.DataObject) -> None:
    rows, capacity = data.draw(st.integers(1, 4), "rows"), data.draw(st.integers(1, 8), "capacity")
    generator = torch.Generator().manual_seed(0)
    cache, lists = make(rows, capacity), Lists(rows)
    for _ in range(data.draw(st.integers(1, 12), "operations")):
        operation = data.draw(st.sampled_from(["append", "append", "append by table", "reorder", "truncate"]))
        if operation.startswith("append"):
            count = data.draw(st.integers(1, 3))
            if cache.length + count <= capacity:
                (append if operation == "append" else append_by_table)(cache, lists, count, generator)
            else:
                with pytest.raises(InputError, match=f"holds {capacity} positions; {cache.length} are taken"):
                    cache.require_room(count)
        elif operation == "reorder":
            # As many rows as before, fewer (some sentences are done), or more.
            index = data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=rows + 1))
            cache.reorder(torch.tensor(index))
            lists.reorder(index)
            rows = len(index)
        else:
            length = data.draw(st.integers(0, cache.length))
            cache.truncate(length)
            lists.truncate(length)
        assert cache.length == len(lists.held[0][0])
        assert cache.capacity == capacity
    if cache.length < capacity:
        append(cache, lists, 1, generator)


@given(st.data())
def test_a_state_keeps_and_reorders_its_sentences(data: st.DataObject) -> None:
    """`keep` on the whole state: the memory has one copy a sentence, the cache `rows` of them."""
    sentences, rows = data.draw(st.integers(1, 4), "sentences"), data.draw(st.integers(1, 3), "rows")
    generator = torch.Generator().manual_seed(0)
    cache, lists = make(sentences * rows, 8), Lists(sentences * rows)
    memory = [(torch.randn(sentences, HEADS, 5, WIDTH), torch.randn(sentences, HEADS, 5, WIDTH)) for _ in range(LAYERS)]
    lengths = torch.randint(1, 6, (sentences,))
    state = DecoderState(cache, Source(list(memory), lengths), rows, max_length=8)
    alive = list(range(sentences))
    append(cache, lists, 2, generator)
    for _ in range(data.draw(st.integers(1, 4), "operations")):
        if data.draw(st.booleans()):
            kept = data.draw(st.lists(st.sampled_from(range(len(alive))), min_size=1, unique=True))
            state.keep(torch.tensor(kept))
            lists.reorder([place * rows + row for place in kept for row in range(rows)])
            alive = [alive[place] for place in kept]
        else:
            within = st.lists(st.integers(0, rows - 1), min_size=rows, max_size=rows)
            index = [place * rows + row for place in range(len(alive)) for row in data.draw(within)]
            state.reorder(torch.tensor(index))
            lists.reorder(index)
        append(cache, lists, 1, generator)
        assert state.length == len(lists.held[0][0])
        for (key, value), (all_keys, all_values) in zip(state.source.layers, memory, strict=True):
            assert torch.equal(key, all_keys[alive])
            assert torch.equal(value, all_values[alive])
        assert state.source.lengths is not None
        assert torch.equal(state.source.lengths, lengths[alive])
        assert state.source._mask is None


@pytest.mark.parametrize("length", [-1, 3])
def test_truncating_to_what_is_not_there_is_refused(length: int) -> None:
    cache, lists = make(1, 4), Lists(1)
    append(cache, lists, 2, torch.Generator())
    with pytest.raises(ValueError, match=f"a cache of 2 positions to {length}"):
        cache.truncate(length)
    assert cache.length == 2


def test_bytes_are_those_of_the_buffer() -> None:
    assert make(3, 5).bytes == LAYERS * 2 * 3 * HEADS * 5 * WIDTH * 4


def test_nothing_is_allocated_while_decoding() -> None:
    cache, lists = make(3, 6), Lists(3)
    address = cache.buffer.data_ptr()
    for _ in range(3):
        append(cache, lists, 2, torch.Generator())
        cache.reorder(torch.tensor([2, 0, 0]))
        lists.reorder([2, 0, 0])
    assert cache.buffer.data_ptr() == address
