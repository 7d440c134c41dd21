"""A convolution over the tokens of a text (Kim 2014, https://arxiv.org/abs/1408.5882, section 2), with a residual path.

Dimensions: B batch, S positions, D width of the stream, K tokens that are read together.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sublayer import config
from sublayer.nn.activation import ACTIVATIONS
from sublayer.nn.initial import glorot
from sublayer.nn.linear import Linear
from sublayer.nn.part import Part


class Convolution(Part):
    """x_t + dropout(act(W [x_(t-k); ...; x_t; ...; x_(t+k)] + b)), with K = 2k + 1 and W of K D -> D.

    What stands before the first and after the last token of a text is zero, so that neither padding nor a neighbour
    in a packed row is read.
    """

    def __init__(self, c: config.Convolution, dim: int) -> None:
        super().__init__()
        self.reach = c.width // 2
        self.map = Linear(c.width * dim, dim)
        self.activation = ACTIVATIONS[c.activation]
        self.dropout = nn.Dropout(c.dropout)

    def reset_parameters(self) -> None:
        glorot(self.map)

    def forward(self, x: Tensor, texts: Tensor | None = None) -> Tensor:
        """Shape: x [B, S, D] -> [B, S, D].

        Args:
            texts: number of the text that each token belongs to, int64 [B, S], padding having a number of its own;
                None where each row is one text without padding.
        """
        return x + self.dropout(self.activation(self.map(self._neighbours(x, texts))))

    def _neighbours(self, x: Tensor, texts: Tensor | None) -> Tensor:
        """Every token with those around it, side by side. Shape: [B, S, D], [B, S] -> [B, S, K D]."""
        size, reach = x.shape[1], self.reach
        padded = F.pad(x, (0, 0, reach, reach))
        found = [padded[:, shift : shift + size] for shift in range(2 * reach + 1)]
        if texts is not None:
            around = F.pad(texts, (reach, reach), value=NO_TEXT)
            found = [
                torch.where((around[:, shift : shift + size] == texts).unsqueeze(-1), one, 0)
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
