"""The decoder (section 3.1): every position sees those before it, and, where there is one, the encoder's output."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sublayer import config, fast
from sublayer.models.backend import replace_by_joining
from sublayer.models.encoder import Memory
from sublayer.models.source import Source
from sublayer.models.stack import Stack, compute_dtype, require_length, restarting
from sublayer.nn.attention import CrossAttention
from sublayer.nn.block import Block
from sublayer.nn.cache import KeyValueCache
from sublayer.nn.context import Context
from sublayer.nn.embedding import Embedding
from sublayer.nn.mask import Mask


@dataclass(eq=False)
class DecoderState:
    """Everything that a decoder remembers between two steps. Search asks only for what stands here.

    cache: keys and values of the tokens so far; row b * num_beams + r is hypothesis r of sentence b.
    source: what cross-attention reads. num_beams: hypotheses a sentence.
    padding: how many of the first columns of each row's cache are padding, int64 [B * num_beams]; None for none.
    max_length: positions of the model; no row may have more tokens.
    """

    cache: KeyValueCache
    source: Source
    num_beams: int
    max_length: int
    padding: Tensor | None = None

    @property
    def length(self) -> int:
        """How many tokens have been fed, padding included."""
        return self.cache.length

    @property
    def bytes(self) -> int:
        """Memory held by keys and values, of the tokens and of the source."""
        return self.cache.bytes + self.source.bytes

    def make_room(self, count: int) -> None:
        """Make sure that `count` more tokens fit.

        Where no room is left, columns that are padding in every row are forgotten: the rows that were longer are gone.

        Raises:
            InputError: they do not fit.
        """
        if self.cache.length + count > self.cache.capacity:
            self._drop_padding()
        if self.cache.length + count > self.max_length:
            longest = self.cache.length - (0 if self.padding is None else int(self.padding.min()))
            require_length("text", longest + count, self.max_length)
        self.cache.require_room(count)

    def _drop_padding(self) -> None:
        """Forget the columns that are padding in every row."""
        unused = 0 if self.padding is None else int(self.padding.min())
        if self.padding is not None and unused:
            self.cache.drop(unused)
            self.padding = self.padding - unused

    def join(self, other: DecoderState) -> None:
        """Go on with the sentences of `other` too, after one's own. `other` must not be used any more.

        Rows need not have the same length: all end at the same column, and what stands before the shorter ones is
        padding.

        Raises:
            ValueError: the two have another number of rows a sentence.
        """
        if self.num_beams != other.num_beams:
            raise ValueError(
                f"a state of {self.num_beams} rows a sentence cannot be joined by one of {other.num_beams}"
            )
        # So that the cache does not grow for as long as texts come and go.
        self._drop_padding()
        sizes = self.cache.buffer.shape[2], other.cache.buffer.shape[2]
        moved = self.cache.join(other.cache)
        if any(moved) or self.padding is not None or other.padding is not None:
            device = self.cache.buffer.device
            self.padding = torch.cat(
                [
                    torch.full((size,), count, device=device) if padding is None else padding + count
                    for size, count, padding in zip(sizes, moved, (self.padding, other.padding), strict=True)
                ]
            )
        self.source = self.source.joined(other.source)

    def replace(self, sentences: Tensor, other: DecoderState) -> None:
        """Go on with the sentences of `other` in the places of these, which are over.

        Where there is room for them nothing else is copied. `other` must not be used any more.

        Shape: sentences [B'], integer.

        Raises:
            ValueError: as `join`.
        """
        own, new = self.cache, other.cache
        if (
            self.num_beams != other.num_beams
            or other.source.size > self.source.size
            or new.length > own.length
            or own.length + new.room > own.capacity
        ):
            replace_by_joining(self, own.buffer.shape[2] // self.num_beams, sentences, other)
            return
        rows = self._rows_of(sentences)
        moved = own.put(rows, new)
        if self.padding is None:
            self.padding = torch.zeros(own.buffer.shape[2], dtype=torch.int64, device=rows.device)
        self.padding[rows] = moved if other.padding is None else other.padding + moved
        self.source.put(sentences, other.source)

    def _rows_of(self, sentences: Tensor) -> Tensor:
        offsets = torch.arange(self.num_beams, device=sentences.device)
        return (sentences.unsqueeze(1) * self.num_beams + offsets).flatten()

    def reorder(self, rows: Tensor) -> None:
        """Row i goes on from what row `rows[i]` was; both must belong to the same sentence.

        Shape: rows [B * num_beams], integer.
        """
        self.cache.reorder(rows)

    def keep(self, sentences: Tensor) -> None:
        """Go on with these sentences only: the others are done.

        Shape: sentences [B'], integer.
        """
        rows = self._rows_of(sentences)
        self.cache.reorder(rows)
        self.padding = None if self.padding is None else self.padding[rows]
        self.source = self.source.at(sentences)

    def truncate(self, length: int) -> None:
        """Forget the tokens from `length` on."""
        self.cache.truncate(length)

    def expand(self, num_beams: int) -> None:
        """Go on with so many rows a sentence, which begin alike; there must be one.

        Raises:
            ValueError: there are more.
        """
        if self.num_beams != 1:
            raise ValueError(f"a state of {self.num_beams} rows a sentence cannot be expanded")
        rows = torch.arange(self.cache.buffer.shape[2], device=self.cache.buffer.device).repeat_interleave(num_beams)
        if num_beams > 1:
            self.cache.reorder(rows)
            self.padding = None if self.padding is None else self.padding[rows]
            self.num_beams = num_beams

    def fork(self, length: int, capacity: int) -> DecoderState:
        """Another state, of the first `length` tokens, with room for `capacity` more; this one stays as it is."""
        return replace(self, cache=self.cache.fork(length, length + capacity))


class Decoder(Stack):
    """A stack in which a token sees its past only, and, with `cross`, an encoder's output."""

    def __init__(self, c: config.Stack, embedding: Embedding, dim: int, max_length: int, *, cross: bool) -> None:
        super().__init__(c, embedding, dim, max_length, causal=True, cross=cross)

    def forward(
        self,
        tokens: Tensor,
        memory: Memory | None = None,
        *,
        segments: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """All positions at once, as in training. Padding on the right needs no mask: nothing real looks there.

        Args:
            segments: number of each token's text, [B, S] int64, where several texts are packed in a row: they do not
                see each other, and positions begin anew. lengths: tokens of each row that are read, [B] int64; what
                is found for the padding after them means nothing, and is computed only where that costs less.

        Shape: tokens [B, T] int64 -> [B, T, D].
        """
        size = tokens.shape[1]
        positions = torch.arange(size, device=tokens.device) if segments is None else restarting(segments)
        kinds = self.resolve(Mask.segments(segments), positions, dtype=self.dtype, lengths=lengths)
        if memory is None:
            return self.through(tokens, Context(positions, kinds))
        sees = memory.mask.resolve(size, memory.states.shape[1], device=tokens.device, dtype=self.dtype)
        return self.through(tokens, Context(positions, kinds, source=memory.states, memory_mask=sees))

    def start(self, memory: Memory, *, num_beams: int, capacity: int, fixed: bool = False) -> DecoderState:
        """The state before the first token, beside an encoder's output.

        Args:
            num_beams: hypotheses a sentence. capacity: tokens that will be fed at most. fixed: the shapes of a step do
                not change (`nn/cache.py`).
        """
        cache = self.new_cache(memory.states.shape[0] * num_beams, capacity, memory.states, fixed)
        layers = [self.cross_attention(index).keys_values(memory.states) for index in range(len(self.layers))]
        return DecoderState(cache, Source(layers, memory.lengths), num_beams, self.max_length)

    def start_alone(
        self, sentences: int, *, capacity: int, padding: Tensor | None, fixed: bool = False
    ) -> DecoderState:
        """The state before the first token, without an encoder; a row a sentence.

        Args:
            capacity: tokens that will be fed at most, padding included. padding: tokens of padding on the left of what
                will be fed, int64 [B]; None for none. fixed: the shapes of a step do not change.
        """
        cache = self.new_cache(sentences, capacity, self.embedding.tokens.weight, fixed)
        return DecoderState(cache, Source(), 1, self.max_length, padding)

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """The next positions of every row; the state moves on by as many.

        Shape: tokens [B * num_beams, n] int64 -> [B * num_beams, n, D].
        """
        new = tokens.shape[1]
        state.make_room(new)
        held, first = state.cache.length, state.cache.position
        # With fixed shapes all keys that there is room for, those to come too: causality hides them.
        keys = torch.arange(held + new if first is None else state.cache.capacity, device=tokens.device)
        mask = Mask.everything()
        if state.padding is not None:
            mask = Mask.left_padding(state.padding)
            # What stands before the first real token is masked; its position only has to exist.
            keys = (keys - state.padding.unsqueeze(1)).clamp(min=0)
        positions = keys[..., held:] if first is None else _from(keys, first, new)
        context = Context(
            positions,
            self.resolve(mask, positions, keys, dtype=self.dtype, first=first),
            cache=state.cache,
            memory=state.source.layers,
            memory_mask=state.source.mask(self.dtype) if state.source.layers else None,
        )
        x = self.through(tokens, context)
        state.cache.advance(new)
        return x

    def lower(self, program: fast.Program) -> fast.Buffer:
        return self.lower_through(program)

    def cross_attention(self, layer: int) -> CrossAttention:
        """The cross-attention of a layer, counted from 0, negative from the last."""
        block = self.layers[layer]
        assert isinstance(block, Block)
        assert block.cross_attention is not None, "this decoder has no encoder beside it"
        return block.cross_attention

    def new_cache(self, rows: int, capacity: int, like: Tensor, fixed: bool = False) -> KeyValueCache:
        """An empty cache for so many rows, where `like` is and in the type that products with it come out in."""
        return KeyValueCache(
            layers=len(self.layers),
            rows=rows,
            heads=self.cache_heads,
            capacity=capacity,
            width=self.cache_width,
            dtype=compute_dtype(like),
            device=like.device,
            fixed=fixed,
        )


def _from(keys: Tensor, first: Tensor, count: int) -> Tensor:
    """`count` of the keys, from number `first` on. Shape: keys [T] or [B, T], first [] int64 -> [n] or [B, n]."""
    return keys.index_select(-1, first + torch.arange(count, device=keys.device))
