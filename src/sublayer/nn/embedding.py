"""Token embeddings (section 3.4): a vector a token, times sqrt(D), plus the positions."""

from __future__ import annotations

import math

from torch import Tensor, nn

from sublayer import config
from sublayer.nn.normalization import build_norm
from sublayer.nn.positions import Position


class Embedding(nn.Module):
    """tokens -> dropout(norm(E[token] * sqrt(D) + position))."""

    def __init__(self, c: config.Embedding, vocab_size: int, dim: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, dim)
        self.scale = math.sqrt(dim) if c.scale else 1.0
        self.norm = nn.Identity() if c.norm is None else build_norm(c.norm, dim)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, tokens: Tensor, position: Position, positions: Tensor) -> Tensor:
        """Shape: tokens [B, S] int64, positions [S] or [B, S] int64 -> [B, S, D]."""
        x = self.tokens(tokens)
        if self.scale != 1.0:
            x = x * self.scale
        return self.dropout(self.norm(position.add(x, positions)))
