"""Vectors of n-grams (fastText: Joulin et al. 2017, https://arxiv.org/abs/1607.01759, section 2.2).

Dimensions: B batch, S positions, E width of the table, N tokens of an n-gram.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sublayer import config
from sublayer.nn.convolution import NO_TEXT
from sublayer.nn.initial import small
from sublayer.nn.part import Part

PRIME = 2**31 - 1
FACTOR = 1_103_515_245
"""Odd and large, but so that its product with a number of 31 bits stays within 64."""


class NGrams(Part):
    """For each token the sum over the sizes N of T[hash(tokens t - N + 1 to t)], where all N are of one text."""

    def __init__(self, c: config.NGrams, width: int) -> None:
        super().__init__()
        self.sizes = c.sizes
        self.table = nn.Embedding(c.buckets, width)

    def reset_parameters(self) -> None:
        small(self.table.weight)

    def forward(self, tokens: Tensor, texts: Tensor | None = None, dropout: float = 0.0) -> Tensor:
        """Shape: tokens [B, S] int64 -> [B, S, E].

        Args:
            texts: number of the text that each token belongs to, int64 [B, S]; None where each row is one text.
            dropout: share of the n-grams that are left out, in training.
        """
        found = []
        for size in self.sizes:
            rows, there = hashed(tokens, size, self.table.num_embeddings, texts)
            kept = F.dropout(there.to(self.table.weight.dtype), dropout, self.training)
            found.append(self.table(rows) * kept.unsqueeze(-1))
        return torch.stack(found).sum(dim=0) if len(found) > 1 else found[0]


def hashed(tokens: Tensor, size: int, buckets: int, texts: Tensor | None) -> tuple[Tensor, Tensor]:
    """The row of the n-gram that ends at each token, and whether there is one: not where a text begins.

    The hash takes the tokens one by one, and spreads what it has between them: x <- F (x ^ token) modulo a prime, and
    x <- x ^ (x >> 15). In whole numbers it is the same wherever it is computed.

    Shape: tokens [B, S], texts [B, S] or None -> rows [B, S] int64, there [B, S] bool.
    """
    length = tokens.shape[1]
    own = torch.zeros_like(tokens) if texts is None else texts
    first = F.pad(own, (size - 1, 0), value=NO_TEXT)[:, :length]
    # It begins with the size, so that "a b" and what begins with token 0, "0 a b", have rows of their own.
    found = torch.full_like(tokens, size)
    before = F.pad(tokens, (size - 1, 0))
    for place in range(size):
        found = (found ^ before[:, place : place + length]) * FACTOR % PRIME
        found = found ^ (found >> 15)
    return found % buckets, first == own
