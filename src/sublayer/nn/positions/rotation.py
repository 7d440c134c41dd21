"""Turning queries and keys by angles that grow with their position.

Dimensions: B batch, H heads, S positions, d width of a head, r how much of it is turned (r <= d, even).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor


class Rotation(NamedTuple):
    """The turn of each pair of dimensions at each position, ready to be applied in every layer.

        (x_a, x_b) -> (x_a cos - x_b sin, x_b cos + x_a sin)

    for every pair (a, b); equation 34 of RoFormer (Su et al. 2021, https://arxiv.org/abs/2104.09864), where
    (a, b) = (2i, 2i + 1), "interleaved"; or, with (a, b) = (i, i + r/2), "halves", as in Llama.

    Shape:
        cos, sin: [S, r], or [B, 1, S, r]; floating. A column for each dimension rather than each pair, and `sin`
        with its sign turned around in the columns a, so that the whole is x * cos + swapped(x) * sin.
    """

    cos: Tensor
    sin: Tensor
    layout: Literal["halves", "interleaved"]

    def apply(self, x_bhsd: Tensor) -> Tensor:
        """`x_bhsd` with its first r dimensions turned, and the others as they were.

        Computed in the wider of the types of `x_bhsd` and `cos`, and returned in the type of `x_bhsd`.

        Shape:
            x_bhsd: [B, H, S, d] (or [H, S, d], [S, d]); the result: the same.
        """
        rotated = self.cos.shape[-1]
        if rotated == x_bhsd.shape[-1]:
            return self._turn(x_bhsd)
        return torch.cat((self._turn(x_bhsd[..., :rotated]), x_bhsd[..., rotated:]), dim=-1)

    def _turn(self, x: Tensor) -> Tensor:
        if self.layout == "halves":
            # Rolling by half the width swaps the halves in one kernel, where slicing and joining takes three.
            swapped = x.roll(x.shape[-1] // 2, dims=-1)
        else:
            swapped = x.reshape(*x.shape[:-1], -1, 2).flip(-1).flatten(-2)
        return (x * self.cos).addcmul_(swapped, self.sin).to(x.dtype)
