"""Multi-head attention (section 3.2.2): self and cross, with grouped keys and values.

    MultiHead(Q, K, V) = Concat(head_1, ..., head_h) W^O
    head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V)

The projections of all heads are one matrix, and those that read the same input are one product: `qkv` in
self-attention, `key_value` in cross-attention.

Shapes: B batch, S queries, T keys, D model width, H query heads, G key-value heads, d width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from sublayer import config, fast
from sublayer.nn.attend import attend
from sublayer.nn.context import KeysValues, LayerContext
from sublayer.nn.initial import glorot, glorot_std
from sublayer.nn.linear import Linear
from sublayer.nn.mask import ResolvedMask
from sublayer.nn.normalization import build_norm
from sublayer.nn.part import NotProvided, Part, TensorPlan
from sublayer.nn.tap import Tap


class MultiHead(Part):
    """What self- and cross-attention share: the heads' sizes, the norms of queries and keys, the way out.

    The tap `weights` sees who attends to whom, `heads` what each head has found, before the output map mixes them.
    `projections`: the names of the maps that lead to the heads.
    """

    projections: tuple[str, ...] = ()

    def __init__(self, c: config.Attention, dim: int) -> None:
        super().__init__()
        self.head_count, self.groups, self.width = c.heads, c.key_value_heads, c.width(dim)
        self.scale = self.width**-0.5 if c.scale is None else c.scale
        self.softcap = c.softcap
        self.dropout = c.dropout
        norm = c.query_key_norm
        self.norm_each_head = c.query_key_norm_over == "head"
        heads, groups = (1, 1) if self.norm_each_head else (self.head_count, self.groups)
        self.query_norm = None if norm is None else build_norm(norm, heads * self.width)
        self.key_norm = None if norm is None else build_norm(norm, groups * self.width)
        self.output = Linear(self.head_count * self.width, dim, bias=c.biased_output)
        self.weights = Tap()
        self.heads = Tap()

    def head_maps(self) -> Iterator[tuple[Tensor, tuple[int, int]]]:
        """Yield each fused matrix, and the shape of the maps W_i that it holds: the paper's, one for each head."""
        for name in self.projections:
            weight = cast(Linear, getattr(self, name)).weight
            yield weight, (self.width, weight.shape[1])
        yield self.output.weight, (self.output.weight.shape[0], self.width)

    def stream_axes(self) -> Mapping[str, int]:
        # The norms of queries and keys are over heads.
        return {**{f"{name}.weight": 1 for name in self.projections}, "output.weight": 0, "output.bias": 0}

    def stream_writers(self) -> Sequence[Tensor]:
        return [self.output.weight]

    def tensor_plan(self) -> TensorPlan:
        """By heads: those of the queries, with those of keys and values that they attend to."""
        normed = self.query_norm is not None or self.key_norm is not None
        if normed and not self.norm_each_head:
            raise NotProvided(self, "how a norm over all heads is shared out", "Take training.parallel.tensor = 1.")
        heads, groups = self.head_count * self.width, self.groups * self.width
        sizes = {"qkv": (heads, groups, groups), "query": (heads,), "key_value": (groups, groups)}
        return TensorPlan(
            colwise={name: sizes[name] for name in self.projections},
            rowwise=["output"],
            within=["query_norm", "key_norm"] if normed else [],
            counts=["head_count", "groups"],
        )

    def written_by_heads(self, heads: Tensor) -> tuple[Tensor, Tensor]:
        """What each head writes to the stream, and what is written where all heads find nothing: the map's bias.

        Shape: heads [S, H, d], as the tap `heads` sees them -> [H, S, D], [S, D].
        """
        alone = torch.zeros(heads.shape[1], *heads.shape, dtype=heads.dtype, device=heads.device)
        each = torch.arange(heads.shape[1])
        alone[each, :, each] = heads.transpose(0, 1)
        # Through the map itself, so that an adapter beside it is taken along.
        nothing = self.output(torch.zeros_like(heads).flatten(1))
        return self.output(alone.flatten(2)) - nothing, nothing

    def _split(self, x: Tensor, heads: int, norm: nn.Module | None = None) -> Tensor:
        """[B, S, heads * d] -> [B, heads, S, d], each head normalized, or all together, where there is a norm."""
        if norm is not None and not self.norm_each_head:
            x = norm(x)
        x = x.view(*x.shape[:-1], heads, self.width).transpose(1, 2)
        return norm(x) if norm is not None and self.norm_each_head else x

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: ResolvedMask) -> Tensor:
        """[B, H, S, d] and [B, G, T, d] -> [B, S, H, d]."""
        dropout = self.dropout if self.training else 0.0
        mixed = attend(
            query, key, value, mask, scale=self.scale, softcap=self.softcap, dropout=dropout, tap=self.weights
        )
        return mixed.transpose(1, 2)

    def _lower_norm(self, program: fast.Program, norm: nn.Module | None, x: fast.Buffer, heads: int) -> None:
        """Normalize queries or keys of `heads` heads in place, each head by itself or all together."""
        if norm is not None:
            program.lower(norm, x, heads if self.norm_each_head else 1, True)

    def _projected(self, mixed: Tensor) -> Tensor:
        """[B, S, H, d] -> [B, S, D]."""
        return self.output(self.heads(mixed).flatten(2))


class SelfAttention(MultiHead):
    """Every position attends to positions of the same sequence."""

    projections = ("qkv",)

    def __init__(self, c: config.Attention, dim: int) -> None:
        super().__init__(c, dim)
        self.qkv = Linear(dim, (self.head_count + 2 * self.groups) * self.width, bias=c.bias)

    def reset_parameters(self) -> None:
        width, grouped = self.head_count * self.width, self.groups * self.width
        glorot(self.qkv, width)
        # Keys and values of fewer heads than the queries have a smaller fan of their own.
        nn.init.normal_(self.qkv.weight[width:], std=glorot_std(self.qkv.in_features, grouped))
        glorot(self.output)

    def forward(self, x: Tensor, context: LayerContext) -> Tensor:
        """Shape: x [B, S, D] -> [B, S, D]. With a cache, x is only what is new and the keys are all so far."""
        query, key, value = self.qkv(x).split(
            [self.head_count * self.width, self.groups * self.width, self.groups * self.width], dim=-1
        )
        query = self._split(query, self.head_count, self.query_norm)
        key, value = self._split(key, self.groups, self.key_norm), self._split(value, self.groups)
        if context.rotation is not None:
            query, key = context.rotation.apply(query), context.rotation.apply(key)
        if context.cache is not None:
            key, value = context.cache.append(key, value)
        return self._projected(self._attend(query, key, value, context.mask))

    def lower(self, program: fast.Program, x: fast.Buffer, layer: fast.Layer) -> fast.Buffer:
        heads, groups, width = self.head_count, self.groups, self.width
        qkv = program.lower(self.qkv, x)
        query, key = qkv.columns(0, heads * width), qkv.columns(heads * width, groups * width)
        self._lower_norm(program, self.query_norm, query, heads)
        self._lower_norm(program, self.key_norm, key, groups)
        program.rotate(qkv, heads + groups, width, layer.positions)
        mixed = program.attend(qkv, layer, heads=heads, groups=groups, head=width, scale=self.scale, cap=self.softcap)
        return program.lower(self.output, mixed)


class CrossAttention(MultiHead):
    """Every position attends to the encoder's output, the memory."""

    projections = ("query", "key_value")

    def __init__(self, c: config.Attention, dim: int) -> None:
        super().__init__(c, dim)
        self.query = Linear(dim, self.head_count * self.width, bias=c.bias)
        self.key_value = Linear(dim, 2 * self.groups * self.width, bias=c.bias)

    def reset_parameters(self) -> None:
        glorot(self.query)
        glorot(self.key_value, self.groups * self.width)
        glorot(self.output)

    def keys_values(self, memory: Tensor) -> KeysValues:
        """Keys and values of the memory: computed once, however many tokens are then decoded.

        Shape: memory [B, T, D] -> [B, G, T, d] each.
        """
        key, value = self.key_value(memory).chunk(2, dim=-1)
        return self._split(key, self.groups, self.key_norm), self._split(value, self.groups)

    def forward(self, x: Tensor, context: LayerContext) -> Tensor:
        """Shape: x [B * r, S, D] -> [B * r, S, D]; keys and values of the source [B, G, T, d].

        r rows that share a source (the hypotheses of one beam) are queries side by side on one copy of its keys.
        """
        assert context.memory_mask is not None, "cross-attention needs to know what of the source is real"
        if context.memory is not None:
            key, value = context.memory
        else:
            assert context.source is not None, "cross-attention needs a source"
            key, value = self.keys_values(context.source)
        query = self._split(self.query(x), self.head_count, self.query_norm)
        rows, shared = query.shape[0], query.shape[0] // key.shape[0]
        if shared > 1:
            # [B * r, H, S, d] -> [B, H, r * S, d]
            query = query.view(-1, shared, *query.shape[1:]).transpose(1, 2).flatten(2, 3)
        mixed = self._attend(query, key, value, context.memory_mask)  # [B, r * S, H, d]
        return self._projected(mixed if shared == 1 else mixed.reshape(rows, -1, *mixed.shape[2:]))

    def lower(self, program: fast.Program, x: fast.Buffer, layer: fast.Layer) -> fast.Buffer:
        query = program.lower(self.query, x)
        self._lower_norm(program, self.query_norm, query, self.head_count)
        mixed = program.cross(
            query, layer, heads=self.head_count, groups=self.groups, head=self.width, scale=self.scale, cap=self.softcap
        )
        return program.lower(self.output, mixed)

    def lower_keys_values(self, program: fast.Program, memory: fast.Buffer, layer: int) -> None:
        """Keep the keys and values of a source as what the layer of this number reads; as `keys_values`."""
        found = program.lower(self.key_value, memory)
        self._lower_norm(program, self.key_norm, found.columns(0, self.groups * self.width), self.groups)
        program.store(found, layer, groups=self.groups, head=self.width)
