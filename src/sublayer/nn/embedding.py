"""Token embeddings (section 3.4): a vector a token, times sqrt(D), plus the positions.

Dimensions: B batch, S positions, D width of the stream, E width of the table where it is another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from sublayer import config, fast
from sublayer.nn.context import Context
from sublayer.nn.convolution import Convolution
from sublayer.nn.initial import SMALL, glorot, small
from sublayer.nn.linear import Linear
from sublayer.nn.normalization import Norm, build_norm
from sublayer.nn.part import NotProvided, Part, TensorPlan, under
from sublayer.nn.positions import Position
from sublayer.nn.tap import Tap


class Embedding(Part):
    """tokens -> convolution(widen(dropout(norm(E[token] * sqrt(D) + type + position)))).

    Positions that are added have the table's width, which is D unless the tree says otherwise; then `widen`, or a
    convolution without a residual path, leads from it to D. The tap `stream` sees the residual stream as it begins.
    """

    def __init__(self, c: config.Embedding, vocab_size: int, dim: int) -> None:
        super().__init__()
        self.width = dim if c.width is None else c.width
        self.tokens = nn.Embedding(vocab_size, self.width)
        self.types = nn.Embedding(c.token_types, self.width) if c.token_types else None
        self.initial_std = c.initial_std
        self.scale = math.sqrt(dim) if c.scale else 1.0
        self.norm = nn.Identity() if c.norm is None else build_norm(c.norm, self.width)
        self.dropout = nn.Dropout(c.dropout)
        self.widen = Linear(self.width, dim) if c.widens else nn.Identity()
        read = dim if c.widens else self.width
        self.convolution = None if c.convolution is None else Convolution(c.convolution, read, dim)
        self.stream = Tap()

    def reset_parameters(self) -> None:
        usual = SMALL if self.scale == 1.0 else self.width**-0.5
        nn.init.normal_(self.tokens.weight, std=usual if self.initial_std is None else self.initial_std)
        if self.types is not None:
            small(self.types.weight)
        if isinstance(self.widen, Linear):
            glorot(self.widen)

    def stream_axes(self) -> Mapping[str, int]:
        if not isinstance(self.widen, nn.Identity) or self.convolution is not None:
            raise NotProvided(self, "which axes are the stream's where it is widened or convolved", "Leave that out.")
        norm = under("norm", self.norm.stream_axes()) if isinstance(self.norm, Norm) else {}
        return {"tokens.weight": 1, "types.weight": 1, **norm}

    def tensor_plan(self) -> TensorPlan:
        """By tokens."""
        return TensorPlan(vocabulary="tokens")

    def forward(self, tokens: Tensor, position: Position, context: Context) -> Tensor:
        """Shape: tokens [B, S] int64 -> [B, S, D].

        Args:
            position: of the stack that reads them.
        """
        x = self.tokens(tokens)
        if self.scale != 1.0:
            x = x * self.scale
        if self.types is not None:
            x = x + (self.types.weight[0] if context.token_type_ids is None else self.types(context.token_type_ids))
        x = self.widen(self.dropout(self.norm(position.add(x, context.positions))))
        return self.stream(x if self.convolution is None else self.convolution(x, context.texts))

    def lower(self, program: fast.Program, positions: fast.Positions) -> fast.Buffer:
        if self.convolution is not None or self.tokens.max_norm is not None:
            raise fast.NotLowered("an embedding with a convolution, or with vectors that are rescaled")
        if self.types is not None:
            # Of the first type, as where no types are given: it is added wherever a position is.
            first = self.types.weight[0]
            added = first.expand(positions.length, -1) if positions.added is None else positions.added + first
            positions = replace(positions, added=added)
        x = program.embed(self.tokens.weight, self.scale, positions)
        return program.lower(self.widen, program.lower(self.norm, x))
