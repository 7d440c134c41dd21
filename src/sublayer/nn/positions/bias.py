"""Positions that are a bias on the attention scores, by the distance from query to key.

Dimensions: B batch, H heads, S query positions, T key positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sublayer import config, fast
from sublayer.errors import ConfigError
from sublayer.nn.initial import small
from sublayer.nn.part import TensorPlan
from sublayer.nn.positions.interface import Position, Tabulated


def _distances(query_positions: Tensor, key_positions: Tensor) -> Tensor:
    """key - query for every pair: [S, T], or [B, S, T] where either has a batch."""
    return key_positions.unsqueeze(-2) - query_positions.unsqueeze(-1)


class ByDistance(Position):
    """A bias that depends on the distance alone; whatever is learned of it is no part of the stream."""

    def stream_axes(self) -> Mapping[str, int]:
        return {}

    def lower(self, length: int) -> fast.Positions:
        """From the distance of the last place to the first on."""
        keys = torch.arange(2 * length - 1)
        bias = self.bias(keys[length - 1 : length], keys, torch.float32)
        assert bias is not None
        return fast.Positions(length, bias=bias.squeeze(1))


class Alibi(ByDistance, Tabulated):
    """A penalty on the scores that grows with the distance (Press et al. 2021, https://arxiv.org/abs/2108.12409).

        score(h, i, j) = q_i . k_j - slope_h |i - j|

    (section 3), with a fixed slope in each head. Under a causal mask only j <= i is seen, and this is the paper's
    -slope (i - j); without one it is the symmetric form for encoders.

    Args:
        heads: query heads, H; any number of them.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self._make_buffer()

    def tensor_plan(self) -> TensorPlan:
        return TensorPlan(axes={"table": 0})

    def make_table(self) -> Tensor:
        """[H] float64."""
        return torch.tensor(slopes(self.heads), dtype=torch.float64, device="cpu")

    def bias(self, query_positions: Tensor, key_positions: Tensor, dtype: torch.dtype) -> Tensor:
        distance = _distances(query_positions, key_positions).abs().to(self.table.dtype)
        return (distance.unsqueeze(-3) * -self.table[:, None, None]).to(dtype)


def slopes(heads: int) -> list[float]:
    """The slope of each head: 2 ** (-8 h / H), h = 1 … H, where H is a power of two.

    For any other H those of the power of two below it, then every other one of the power of two above it, from the
    first, as in the authors' code (https://github.com/ofirpress/attention_with_linear_biases).

    >>> slopes(3)
    [0.0625, 0.00390625, 0.25]
    """
    below = 2 ** int(math.log2(heads))
    own = [2.0 ** (-8.0 * h / below) for h in range(1, below + 1)]
    between = [2.0 ** (-4.0 * h / below) for h in range(1, 2 * below + 1, 2)]
    return own + between[: heads - below]


class Kerple(ByDistance):
    """A penalty that grows with the logarithm of the distance (KERPLE, Chi et al. 2022, https://arxiv.org/abs/2205.09921).

        score(h, i, j) = q_i . k_j - r_h log(1 + s_h |i - j|),   r_h, s_h > 0

    (the logarithmic variant), with r and s learned in each head: `weight` holds their logarithms, which keep
    them positive. One bias serves all layers of a stack.

    Shape: weight [2, H], log r and log s.

    Args:
        heads: query heads, H.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(2, heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        # About 1: a key then weighs as the inverse of its distance.
        small(self.weight)

    def tensor_plan(self) -> TensorPlan:
        return TensorPlan(axes={"weight": 1})

    def bias(self, query_positions: Tensor, key_positions: Tensor, dtype: torch.dtype) -> Tensor:
        # In float32 at least: each gradient is a sum over very many pairs.
        wide = torch.promote_types(self.weight.dtype, torch.float32)
        distance = _distances(query_positions, key_positions).abs().to(wide).unsqueeze(-3)
        r, s = self.weight.to(wide).exp()[..., None, None]  # [H, 1, 1] each
        return (-r * (s * distance).log1p()).to(dtype)


class RelativeBias(ByDistance, Tabulated):
    """T5's relative bias: a trained number for each head and bucket of distances, added to the scores.

        score(h, i, j) = q_i . k_j + W[bucket(j - i), h]

    (Raffel et al. 2020, https://arxiv.org/abs/1910.10683, section 2.1). Half of the buckets are for single distances,
    the others grow logarithmically up to `max_distance`, and the last one holds whatever is farther. An encoder's
    (`bidirectional`) use half of all for each direction; a decoder's put all keys after the query in bucket 0.
    One bias serves all layers of a stack.

    Args:
        c: the configuration.
        heads: query heads, H.
        bidirectional: whether a query also attends to what follows it.

    Raises:
        ConfigError: where `max_distance` leaves no room for buckets of more than one distance.
    """

    def __init__(self, c: config.RelativeBias, heads: int, bidirectional: bool) -> None:
        super().__init__()
        self.config = c
        self.bidirectional = bidirectional
        one_way = c.buckets // 2 if bidirectional else c.buckets
        if c.max_distance <= one_way // 2:
            raise ConfigError(
                f"position.max_distance = {c.max_distance} is not more than {one_way // 2}, up to which"
                f" position.buckets = {c.buckets} give each distance a bucket of its own",
                "Raise position.max_distance, or take fewer position.buckets.",
            )
        self.weight = nn.Parameter(torch.empty(c.buckets, heads))
        self.reset_parameters()
        self._make_buffer()

    def reset_parameters(self) -> None:
        small(self.weight)

    def tensor_plan(self) -> TensorPlan:
        return TensorPlan(axes={"weight": 1})

    def make_table(self) -> Tensor:
        """[2 * max_distance + 1] int64: the bucket of each distance from -max_distance to max_distance."""
        reach = self.config.max_distance
        distance = torch.arange(-reach, reach + 1, device="cpu")
        if not self.bidirectional:
            return self._one_way_bucket((-distance).clamp(min=0), self.config.buckets)
        half = self.config.buckets // 2
        return self._one_way_bucket(distance.abs(), half) + half * (distance > 0)

    def _one_way_bucket(self, distance: Tensor, buckets: int) -> Tensor:
        single = buckets // 2
        # In float32 and in this order, as T5 was trained: where a distance falls between two buckets, rounding decides.
        beyond = torch.log(distance.clamp(min=1).float() / single) / math.log(self.config.max_distance / single)
        bucket = single + (beyond * (buckets - single)).long()
        return torch.where(distance < single, distance, bucket.clamp(max=buckets - 1))

    def bias(self, query_positions: Tensor, key_positions: Tensor, dtype: torch.dtype) -> Tensor:
        reach = self.config.max_distance
        index = _distances(query_positions, key_positions).clamp(-reach, reach) + reach  # [S, T] or [B, S, T]
        # First by distance, of which there are few; then by pair. In float32 at least, because the gradient of each
        # bucket is a sum over very many pairs; and by embedding, whose gradient is deterministic on a GPU.
        wide = torch.promote_types(self.weight.dtype, torch.float32)
        by_distance = F.embedding(self.table, self.weight.to(wide))  # [2 * reach + 1, H]
        bias = F.embedding(index, by_distance).movedim(-1, -3)  # [H, S, T] or [B, H, S, T]
        return bias.to(dtype).contiguous()


def build_bias(c: config.Alibi | config.Kerple | config.RelativeBias, heads: int, bidirectional: bool) -> Position:
    """The bias of a stack; the arguments are those of `build_position`."""
    match c:
        case config.Alibi():
            return Alibi(heads)
        case config.Kerple():
            return Kerple(heads)
        case config.RelativeBias():
            return RelativeBias(c, heads, bidirectional)
