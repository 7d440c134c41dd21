"""A convolution over the tokens of a text (Kim 2014, https://arxiv.org/abs/1408.5882, section 2), with a residual path.

Dimensions: B batch, S positions, E width of what is read, D width of the stream, K tokens that are read together.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sublayer import config
from sublayer.nn.activation import ACTIVATIONS
from sublayer.nn.initial import glorot
from sublayer.nn.linear import Linear
from sublayer.nn.part import Part


class Convolution(Part):
    """x_t + dropout(act(W [x_(t-j); ...; x_t; ...; x_(t+k)] + b)), with W of K E -> D, j = (K - 1) // 2 and k = K // 2.

    Of several widths each has some of the D filters, side by side. Without the residual path x_t is not added, and its
    width E may be another than D.
    What stands before the first and after the last token of a text is zero, so that neither padding nor a neighbour
    in a packed row is read.
    """

    def __init__(self, c: config.Convolution, read: int, dim: int) -> None:
        super().__init__()
        maps = [Linear(width * read, count) for width, count in c.filters(dim).items()]
        self.widths = tuple(c.filters(dim))
        self.map, self.others = maps[0], nn.ModuleList(maps[1:])
        self.activation = ACTIVATIONS[c.activation]
        self.residual = c.residual
        self.dropout = nn.Dropout(c.dropout)

    def reset_parameters(self) -> None:
        for each in (self.map, *self.others):
            glorot(cast("Linear", each))

    def forward(self, x: Tensor, texts: Tensor | None = None) -> Tensor:
        """Shape: x [B, S, E] -> [B, S, D].

        Args:
            texts: number of the text that each token belongs to, int64 [B, S], padding having a number of its own;
                None where each row is one text without padding.
        """
        maps = zip(self.widths, (self.map, *self.others), strict=True)
        found = [each(_neighbours(x, width, texts)) for width, each in maps]
        found = self.dropout(self.activation(torch.cat(found, dim=-1) if len(found) > 1 else found[0]))
        return x + found if self.residual else found


def _neighbours(x: Tensor, width: int, texts: Tensor | None) -> Tensor:
    """Every token with those around it, side by side. Shape: [B, S, E], [B, S] -> [B, S, K E]."""
    size, around = x.shape[1], ((width - 1) // 2, width // 2)
    padded = F.pad(x, (0, 0, *around))
    found = [padded[:, shift : shift + size] for shift in range(width)]
    if texts is not None:
        numbers = F.pad(texts, around, value=NO_TEXT)
        found = [
            torch.where((numbers[:, shift : shift + size] == texts).unsqueeze(-1), one, 0)
            for shift, one in enumerate(found)
        ]
    return torch.cat(found, dim=-1)


NO_TEXT = -2
"""The number of what stands outside of a row."""
PADDING = -1
"""The number of padding, which is no text."""


def text_numbers(tokens: Tensor, lengths: Tensor | None, segments: Tensor | None) -> Tensor | None:
    """The number of the text that each token belongs to, `PADDING` where it is padding; None where all rows are full.

    Shape: tokens [B, S], lengths [B], segments [B, S] int64 -> [B, S] int64.
    """
    if lengths is None:
        return segments
    place = torch.arange(tokens.shape[1], device=tokens.device)
    numbers = torch.zeros_like(tokens) if segments is None else segments
    return torch.where(place < lengths.unsqueeze(1), numbers, PADDING)
