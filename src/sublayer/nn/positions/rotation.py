"""Rotary positions: turning queries and keys by angles that grow with their position.

Which angle (and how the frequencies are stretched for longer texts), the table of them, and the turning itself.

Dimensions: B batch, H heads, S positions, d width of a head, r how much of it is turned (r <= d, even), L the longest
length.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sublayer import config, fast
from sublayer.nn.positions.interface import Tabulated


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


class Rotary(Tabulated):
    """Queries and keys turned by their position (RoFormer, Su et al. 2021, https://arxiv.org/abs/2104.09864).

        q_m . k_n = Re[ sum_i q_i conj(k_i) exp(i (m - n) theta_i) ],   theta_i = base ** (-2i / r)

    so that a score depends on the distance m - n alone (equations 14 to 16, with a pair of dimensions as one complex
    number). Only the first r = `fraction` * head_dim dimensions of a head are turned.

    Args:
        c: the configuration.
        head_dim: width of one head, d.
        max_length: positions 0 up to max_length - 1 are in the table.
    """

    def __init__(self, c: config.Rotary, head_dim: int, max_length: int) -> None:
        super().__init__()
        self.config = c
        self.max_length = max_length
        self.rotated = int(head_dim * c.fraction)
        self._make_buffer()

    def make_table(self) -> Tensor:
        """[L, 2r] float64: the cosines, then the sines, as `Rotation` wants them."""
        frequency_i, magnitude = frequencies(self.config, self.rotated)
        position_l = torch.arange(self.max_length, dtype=torch.float64, device="cpu")
        angle_li = torch.outer(position_l, frequency_i)
        cos_li, sin_li = angle_li.cos() * magnitude, angle_li.sin() * magnitude
        if self.config.layout == "halves":
            return torch.cat((cos_li, cos_li, -sin_li, sin_li), dim=-1)
        cos_lr = cos_li.repeat_interleave(2, dim=-1)
        return torch.cat((cos_lr, torch.stack((-sin_li, sin_li), dim=-1).flatten(-2)), dim=-1)

    def rotation(self, positions: Tensor, dtype: torch.dtype) -> Rotation:
        row = F.embedding(positions, self.table).to(dtype)  # [S, 2r] or [B, S, 2r]
        if positions.dim() == 2:
            row = row.unsqueeze(1)  # the same for all heads
        cos, sin = row.chunk(2, dim=-1)
        return Rotation(cos, sin, self.config.layout)

    def lower(self, length: int) -> fast.Positions:
        cos, sin = self.table[:length].chunk(2, dim=-1)
        pairs, interleaved = self.rotated // 2, self.config.layout == "interleaved"
        # One column a pair; the second of a pair has the sine with its own sign.
        cos, sin = (cos[:, 1::2], sin[:, 1::2]) if interleaved else (cos[:, pairs:], sin[:, pairs:])
        return fast.Positions(length, cos=cos, sin=sin, interleaved=interleaved)


def frequencies(c: config.Rotary, rotated: int) -> tuple[Tensor, float]:
    """The angle by which each pair turns from one position to the next, and the factor on its sine and cosine.

    Shape:
        the frequencies: [rotated / 2], float64, radians, falling; the factor: 1 except with YaRN.
    """
    kept_i = _geometric(c.base, rotated)
    match c.scaling:
        case config.Unscaled():
            return kept_i, 1.0
        case config.LinearScaling(factor=factor):
            # Position interpolation (Chen et al. 2023, https://arxiv.org/abs/2306.15595), equation 4.
            return kept_i / factor, 1.0
        case config.NtkScaling(factor=factor):
            return _ntk(c.base, rotated, factor), 1.0
        case config.YarnScaling() as scaling:
            return _yarn(scaling, c.base, rotated)
        case config.Llama3Scaling() as scaling:
            return _llama3(scaling, kept_i), 1.0


def _geometric(base: float, rotated: int) -> Tensor:
    exponent_i = torch.arange(0, rotated, 2, dtype=torch.float64, device="cpu") / rotated
    return torch.pow(base, -exponent_i)


def _ntk(base: float, rotated: int, factor: float) -> Tensor:
    """base' = base * factor ** (r / (r - 2)), so that the last frequency is divided by exactly `factor`.

    "NTK-aware" interpolation; YaRN (https://arxiv.org/abs/2309.00071), section 3.1.
    """
    if rotated == 2:
        # The one pair is the fastest, which is kept; the exponent would divide by 0.
        return _geometric(base, rotated)
    return _geometric(base * factor ** (rotated / (rotated - 2)), rotated)


def _yarn(c: config.YarnScaling, base: float, rotated: int) -> tuple[Tensor, float]:
    """theta' = (1 - keep) theta / factor + keep theta, with keep falling from 1 to 0 between two dimensions.

    They are those that turn `beta_fast` and `beta_slow` times within the original length: "NTK-by-parts" (Peng et al.
    2023, https://arxiv.org/abs/2309.00071, section 3.2); the limits are rounded outwards to whole dimensions, as in
    the authors' code. The factor 0.1 ln(s) + 1 on sines and cosines (section 3.4) sharpens the attention.
    """

    def pair_that_turns(times: float) -> float:
        """Which i solves original_length * base ** (-2i / r) = 2 pi * times."""
        return rotated * math.log(c.original_length / (2 * math.pi * times)) / (2 * math.log(base))

    first = max(math.floor(pair_that_turns(c.beta_fast)), 0)
    last = min(math.ceil(pair_that_turns(c.beta_slow)), rotated - 1)
    width = last - first if last != first else 0.001  # a step, where both fall on the same dimension
    index_i = torch.arange(rotated // 2, dtype=torch.float64, device="cpu")
    interpolate_i = ((index_i - first) / width).clamp(0.0, 1.0)
    kept_i = _geometric(base, rotated)
    magnitude = yarn_magnitude(c.factor) if c.magnitude is None else c.magnitude
    return torch.lerp(kept_i, kept_i / c.factor, interpolate_i), magnitude


def yarn_magnitude(factor: float, multiple: float = 1.0) -> float:
    """The factor on sines and cosines of positions that are stretched by `factor`."""
    return 0.1 * multiple * math.log(factor) + 1.0 if factor > 1.0 else 1.0


def _llama3(c: config.Llama3Scaling, kept_i: Tensor) -> Tensor:
    """theta' = (1 - s) theta / factor + s theta, with s from 0 to 1 as the turns within the original length grow.

        s = clamp((turns - low) / (high - low)),   turns = original_length * theta / (2 pi)

    The scaling of Llama 3.1 (https://arxiv.org/abs/2407.21783; given in the model's code).
    """
    turns_i = c.original_length * kept_i / (2 * math.pi)
    low, high = c.low_frequency_factor, c.high_frequency_factor
    keep_i = ((turns_i - low) / (high - low)).clamp(0.0, 1.0)
    return torch.lerp(kept_i / c.factor, kept_i, keep_i)
