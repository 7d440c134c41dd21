"""Normalization of the residual stream. Dimensions: D width (the last dimension of any shape)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sublayer import config, fast


class LayerNorm(nn.Module):
    """Mean and variance removed, then scaled and shifted (Ba et al. 2016, https://arxiv.org/abs/1607.06450).

        y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias

    over the last dimension, with the variance's divisor D.

    Shape:
        x: [..., D], floating; y: the same. Statistics of float16 and bfloat16 are computed in float32.

    Args:
        c: the configuration; without `c.bias` there is no bias.
        dim: D.
    """

    def __init__(self, c: config.LayerNorm, dim: int) -> None:
        super().__init__()
        self.eps = c.eps
        self.weight = nn.Parameter(torch.empty(dim))
        self.bias = nn.Parameter(torch.empty(dim)) if c.bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        # The kernel wants one type for all, and computes float16 and bfloat16 in float32 by itself.
        y = F.layer_norm(x.to(self.weight.dtype), self.weight.shape, self.weight, self.bias, self.eps)
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}, bias={self.bias is not None}"


class RMSNorm(nn.Module):
    """Divided by the root mean square, then scaled (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467).

        y = x / sqrt(mean(x ** 2) + eps) * weight

    over the last dimension (equation 4); with `c.plus_one` the scale is 1 + weight.

    Shape:
        x: [..., D], floating; y: the same. The mean of float16 and bfloat16 is computed in float32.

    Args:
        c: the configuration.
        dim: D.
    """

    def __init__(self, c: config.RMSNorm, dim: int) -> None:
        super().__init__()
        self.eps, self.plus_one = c.eps, c.plus_one
        self.weight = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.weight, 0.0 if self.plus_one else 1.0)

    def forward(self, x: Tensor) -> Tensor:
        scale = 1.0 + self.weight if self.plus_one else self.weight
        return fast.rms_norm(x.to(scale.dtype), scale, self.eps).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"


def build_norm(c: config.Norm, dim: int) -> nn.Module:
    """The norm that `c` describes, over a last dimension of width `dim`."""
    match c:
        case config.LayerNorm():
            return LayerNorm(c, dim)
        case config.RMSNorm():
            return RMSNorm(c, dim)
