"""The decoder (section 3.1): every position sees those before it, and, where there is one, the encoder's output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sublayer import config
from sublayer.models.encoder import Memory
from sublayer.models.stack import Stack, compute_dtype, restarting
from sublayer.nn.attention import CrossAttention
from sublayer.nn.block import Block
from sublayer.nn.cache import KeyValueCache
from sublayer.nn.embedding import Embedding
from sublayer.nn.mask import Mask, Scope
from sublayer.nn.positions import Rotation

KeysValues = Sequence[tuple[Tensor, Tensor]]
"""Cross-attention's keys and values [B, G, T, d], of each layer; none in a decoder that has no encoder beside it."""


@dataclass(eq=False)
class DecoderState:
    """Everything that a decoder remembers between two steps. Search asks only for what stands here.

    cache: keys and values of the tokens so far; row b * rows + r is hypothesis r of sentence b.
    memory: cross-attention keys and values of each layer, one copy a sentence.
    memory_lengths: how many source positions are real. rows: hypotheses a sentence.
    padding: how many of the first columns of each row's cache are padding, int64 [B * rows]; None for none.
    """

    cache: KeyValueCache
    memory: list[tuple[Tensor, Tensor]]
    memory_lengths: Tensor | None
    rows: int
    padding: Tensor | None = None
    memory_scope: Scope | None = field(default=None, repr=False)

    @property
    def length(self) -> int:
        """How many tokens have been fed."""
        return self.cache.length

    @property
    def bytes(self) -> int:
        """Memory held by keys and values, of the tokens and of the source."""
        return self.cache.bytes + sum(part.numel() * part.element_size() for pair in self.memory for part in pair)

    def reorder(self, rows: Tensor) -> None:
        """Row i goes on from what row `rows[i]` was; both must belong to the same sentence.

        Shape: rows [B * rows], integer.
        """
        self.cache.reorder(rows)

    def keep(self, sentences: Tensor) -> None:
        """Go on with these sentences only: the others are done.

        Shape: sentences [B'], integer.
        """
        offsets = torch.arange(self.rows, device=sentences.device)
        rows = (sentences.unsqueeze(1) * self.rows + offsets).flatten()
        self.cache.reorder(rows)
        self.padding = None if self.padding is None else self.padding[rows]
        self.memory = [(key[sentences], value[sentences]) for key, value in self.memory]
        self.memory_lengths = None if self.memory_lengths is None else self.memory_lengths[sentences]
        self.memory_scope = None

    def truncate(self, length: int) -> None:
        """Forget the tokens from `length` on."""
        self.cache.truncate(length)


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
        mask = Mask.everything() if segments is None else Mask.segments(segments)
        x = self.embedding(tokens, self.position, positions)
        scopes = self.scopes(mask, positions, positions, (size, size), compute_dtype(x), lengths)
        if memory is None:
            return self._through(x, scopes, None, (), None)
        keys_values = self._keys_values(memory)
        memory_scope = memory.mask.resolve(size, memory.states.shape[1], device=x.device, dtype=compute_dtype(x))
        return self._through(x, scopes, None, keys_values, memory_scope)

    def start(self, memory: Memory, *, rows: int, capacity: int) -> DecoderState:
        """The state before the first token, beside an encoder's output.

        Args:
            rows: hypotheses a sentence. capacity: tokens that will be fed at most.
        """
        cache = self._cache(memory.states.shape[0] * rows, capacity, memory.states)
        return DecoderState(cache, self._keys_values(memory), memory.lengths, rows)

    def start_alone(self, sentences: int, *, capacity: int, padding: Tensor | None) -> DecoderState:
        """The state before the first token, without an encoder; a row a sentence.

        Args:
            capacity: tokens that will be fed at most, padding included. padding: tokens of padding on the left of what
                will be fed, int64 [B]; None for none.
        """
        cache = self._cache(sentences, capacity, self.embedding.tokens.weight)
        return DecoderState(cache, [], None, 1, padding)

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """The next positions of every row; the state moves on by as many.

        Shape: tokens [B * rows, n] int64 -> [B * rows, n, D].
        """
        held, new = state.cache.length, tokens.shape[1]
        state.cache.require_room(new)
        keys = torch.arange(held + new, device=tokens.device)
        mask = Mask.everything()
        if state.padding is not None:
            mask = Mask.left_padding(state.padding)
            # What stands before the first real token is masked; its position only has to exist.
            keys = (keys - state.padding.unsqueeze(1)).clamp(min=0)
        positions = keys[..., held:]
        x = self.embedding(tokens, self.position, positions)
        dtype = compute_dtype(x)
        scopes = self.scopes(mask, positions, keys, (new, held + new), dtype)
        if state.memory and state.memory_scope is None:
            real = Mask.everything() if state.memory_lengths is None else Mask.padding(state.memory_lengths)
            size = state.memory[0][0].shape[2]
            state.memory_scope = real.resolve(new, size, device=tokens.device, dtype=dtype)
        x = self._through(x, scopes, state.cache, state.memory, state.memory_scope)
        state.cache.advance(new)
        return x

    def _through(
        self,
        x: Tensor,
        scopes: Sequence[tuple[Scope, Rotation | None]],
        cache: KeyValueCache | None,
        keys_values: KeysValues,
        memory_scope: Scope | None,
    ) -> Tensor:
        for index, (layer, kind) in enumerate(zip(self.layers, self.kind_of_layer, strict=True)):
            layer_cache = None if cache is None else cache.layer(index)
            memory = keys_values[index] if keys_values else None
            x = layer(x, *scopes[kind], layer_cache, memory, memory_scope)
        return self.norm(x)

    def _keys_values(self, memory: Memory) -> list[tuple[Tensor, Tensor]]:
        return [self.cross_attention(index).keys_values(memory.states) for index in range(len(self.layers))]

    def cross_attention(self, layer: int) -> CrossAttention:
        """The cross-attention of a layer, counted from 0, negative from the last."""
        block = self.layers[layer]
        assert isinstance(block, Block)
        assert block.cross_attention is not None, "this decoder has no encoder beside it"
        return block.cross_attention

    def _cache(self, rows: int, capacity: int, like: Tensor) -> KeyValueCache:
        return KeyValueCache(
            layers=len(self.layers),
            rows=rows,
            heads=self.cache_heads,
            capacity=capacity,
            width=self.cache_width,
            dtype=compute_dtype(like),
            device=like.device,
        )
