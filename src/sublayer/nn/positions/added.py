"""Positions that are added to the embeddings (section 3.5).

Dimensions: B batch, S positions, D width of the residual stream, L the longest length.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sublayer import config, fast
from sublayer.nn.initial import small
from sublayer.nn.positions.interface import Position, Tabulated


class Sinusoidal(Tabulated):
    """Sines and cosines of fixed frequencies ("Attention Is All You Need", section 3.5).

        PE(pos, 2i) = sin(pos / base ** (2i / D)),   PE(pos, 2i + 1) = cos(pos / base ** (2i / D))

    with layout "interleaved"; with "halves" the same numbers, all sines first. With spacing "inclusive" the exponent is
    i / (D / 2 - 1), so that the last frequency is 1 / base.

    Args:
        c: the configuration; position pos is that of number pos + c.offset.
        dim: D, even.
        max_length: positions 0 up to max_length - 1 are in the table; a later one is an IndexError.
    """

    def __init__(self, c: config.Sinusoidal, dim: int, max_length: int) -> None:
        super().__init__()
        self.config = c
        self.dim = dim
        self.max_length = max_length
        self._make_buffer()

    def make_table(self) -> Tensor:
        """[L, D] float64."""
        position_l = torch.arange(self.max_length, dtype=torch.float64, device="cpu") + self.config.offset
        half = self.dim // 2
        steps = half if self.config.spacing == "paper" else max(half - 1, 1)
        exponent_i = torch.arange(half, dtype=torch.float64, device="cpu") / steps
        angle_li = torch.outer(position_l, torch.pow(self.config.base, -exponent_i))
        if self.config.layout == "halves":
            return torch.cat((angle_li.sin(), angle_li.cos()), dim=-1)
        return torch.stack((angle_li.sin(), angle_li.cos()), dim=-1).flatten(-2)

    def lower(self, length: int) -> fast.Positions:
        return fast.Positions(length, added=self.table[:length])

    def add(self, x: Tensor, positions: Tensor) -> Tensor:
        return x + F.embedding(positions, self.table).to(x.dtype)


class Learned(Position):
    """One trained vector a position (section 3.5, last paragraph; Gehring et al. 2017): x + W[pos].

    Args:
        c: the configuration.
        dim: D.
        max_length: positions 0 up to max_length - 1 have a vector; a later one is an IndexError.
    """

    def __init__(self, c: config.Learned, dim: int, max_length: int) -> None:
        super().__init__()
        self.config = c
        self.weight = nn.Parameter(torch.empty(max_length + c.offset, dim))  # [offset + L, D]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        small(self.weight)

    def stream_axes(self) -> Mapping[str, int]:
        return {"weight": 1}

    def add(self, x: Tensor, positions: Tensor) -> Tensor:
        return x + F.embedding(positions + self.config.offset, self.weight).to(x.dtype)

    def lower(self, length: int) -> fast.Positions:
        return fast.Positions(length, added=self.weight[self.config.offset :][:length])
