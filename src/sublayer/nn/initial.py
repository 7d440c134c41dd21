"""How weights begin: the distributions that the parts draw from. `models/initialization.py` has the table of all."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

SMALL = 0.02
"""Standard deviation of what is added to something else, as in BERT and GPT-2."""


def glorot(linear: nn.Linear, fan_out: int | None = None) -> None:
    """Fill a map: normal, with the std sqrt(2 / (fan in + fan out)) of Glorot and Bengio 2010, and a bias of zeros.

    Args:
        fan_out: that of one projection, where several stand in one matrix.
    """
    nn.init.normal_(linear.weight, std=glorot_std(linear.in_features, fan_out or linear.out_features))
    zero_bias(linear)


def glorot_std(fan_in: int, fan_out: int) -> float:
    return math.sqrt(2 / (fan_in + fan_out))


def small(parameter: Tensor) -> None:
    """Fill a parameter: normal, std 0.02."""
    nn.init.normal_(parameter, std=SMALL)


def zero_bias(linear: nn.Linear) -> None:
    if linear.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
        nn.init.zeros_(linear.bias)


def orthogonal(like: Tensor) -> Tensor:
    """Return a random orthogonal matrix, every one as probable as every other (Mezzadri 2007)."""
    q, r = cast("tuple[Tensor, Tensor]", torch.linalg.qr(torch.randn(like.shape, device=like.device)))
    return q * r.diagonal().sign()
