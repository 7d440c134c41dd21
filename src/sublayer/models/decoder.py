"""The decoder (section 3.1): every position sees those before it, and the encoder's output."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sublayer import config
from sublayer.models.encoder import Memory, compute_dtype
from sublayer.nn.attention import CrossAttention
from sublayer.nn.block import DecoderBlock
from sublayer.nn.cache import KeyValueCache
from sublayer.nn.embedding import Embedding
from sublayer.nn.mask import Mask, Scope
from sublayer.nn.normalization import build_norm
from sublayer.nn.positions import build_position


@dataclass(eq=False)
class DecoderState:
    """Everything that a decoder remembers between two steps. Search asks only for what stands here.

    cache: keys and values of the tokens so far; row b * rows + r is hypothesis r of sentence b.
    memory: cross-attention keys and values of each layer, one copy a sentence.
    memory_mask: which source positions are real. rows: hypotheses a sentence.
    """

    cache: KeyValueCache
    memory: list[tuple[Tensor, Tensor]]
    memory_lengths: Tensor | None
    rows: int
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
        self.cache.reorder((sentences.unsqueeze(1) * self.rows + offsets).flatten())
        self.memory = [(key[sentences], value[sentences]) for key, value in self.memory]
        self.memory_lengths = None if self.memory_lengths is None else self.memory_lengths[sentences]
        self.memory_scope = None

    def truncate(self, length: int) -> None:
        """Forget the tokens from `length` on."""
        self.cache.truncate(length)


class Decoder(nn.Module):
    """Embedding, N blocks, and a last norm where the wiring leaves the stream unnormalized."""

    def __init__(self, c: config.Stack, embedding: Embedding, dim: int, max_length: int) -> None:
        super().__init__()
        attention = c.block.attention
        self.embedding = embedding
        self.position = build_position(
            c.position,
            dim=dim,
            heads=attention.heads,
            head_dim=attention.width(dim),
            max_length=max_length,
            bidirectional=False,
        )
        self.layers = nn.ModuleList(DecoderBlock(c.block, dim) for _ in range(c.layers))
        self.norm = nn.Identity() if c.block.wiring == "post" else build_norm(c.block.norm, dim)
        self.mask = Mask.causal() if attention.window is None else Mask.causal() & Mask.window(attention.window)
        self.cache_heads, self.cache_width = attention.key_value_heads, attention.width(dim)

    def forward(self, tokens: Tensor, memory: Memory) -> Tensor:
        """All positions at once, as in training. Padding on the right needs no mask: nothing real looks there.

        Shape: tokens [B, T] int64 -> [B, T, D].
        """
        keys_values = [self._cross(index).keys_values(memory.states) for index in range(len(self.layers))]
        return self._run(tokens, keys_values, None, memory.mask, None)

    def start(self, memory: Memory, *, rows: int, capacity: int) -> DecoderState:
        """The state before the first token.

        Args:
            rows: hypotheses a sentence. capacity: tokens that will be fed at most.
        """
        keys_values = [self._cross(index).keys_values(memory.states) for index in range(len(self.layers))]
        cache = KeyValueCache(
            layers=len(self.layers),
            rows=memory.states.shape[0] * rows,
            heads=self.cache_heads,
            capacity=capacity,
            width=self.cache_width,
            dtype=compute_dtype(memory.states),
            device=memory.states.device,
        )
        return DecoderState(cache, keys_values, memory.lengths, rows)

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """The next positions of every row; the state moves on by as many.

        Shape: tokens [B * rows, n] int64 -> [B * rows, n, D].
        """
        state.cache.require_room(tokens.shape[1])
        mask = Mask.everything() if state.memory_lengths is None else Mask.padding(state.memory_lengths)
        x = self._run(tokens, state.memory, state.cache, mask, state)
        state.cache.advance(tokens.shape[1])
        return x

    def _run(
        self,
        tokens: Tensor,
        keys_values: list[tuple[Tensor, Tensor]],
        cache: KeyValueCache | None,
        memory_mask: Mask,
        state: DecoderState | None,
    ) -> Tensor:
        device, new = tokens.device, tokens.shape[1]
        held = 0 if cache is None else cache.length
        keys = torch.arange(held + new, device=device)
        positions = keys[held:]
        x = self.embedding(tokens, self.position, positions)
        dtype = compute_dtype(x)
        scope = self.mask.resolve(
            new, held + new, device=device, dtype=dtype, bias=self.position.bias(positions, keys, dtype)
        )
        rotation = self.position.rotation(positions, dtype)
        memory_scope = None if state is None else state.memory_scope
        if memory_scope is None:
            memory_scope = memory_mask.resolve(new, keys_values[0][0].shape[2], device=device, dtype=dtype)
            if state is not None:
                state.memory_scope = memory_scope
        for index, layer in enumerate(self.layers):
            layer_cache = None if cache is None else cache.layer(index)
            x = layer(x, scope, rotation, keys_values[index], memory_scope, layer_cache)
        return self.norm(x)

    def _cross(self, index: int) -> CrossAttention:
        block = self.layers[index]
        assert isinstance(block, DecoderBlock)
        return block.cross_attention
