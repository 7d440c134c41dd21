"""Normalization of the residual stream. Dimensions: D width (the last dimension of any shape)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sublayer import config, fast
from sublayer.nn.part import NotProvided, Part
from sublayer.nn.tap import HookPoint


class Norm(Part, HookPoint):
    """What a norm says of itself. bias: what is added last, [D].

    Lowered, it normalizes each of `parts` equal parts of a buffer by itself, in place where that is wanted.
    """

    bias: nn.Parameter | None

    def stream_axes(self) -> Mapping[str, int]:
        return {name: 0 for name, _ in self.named_parameters()}

    def at_scale(self, whole: Tensor) -> Callable[[Tensor], Tensor]:
        """The linear map that the norm is once its scale is held at what it is for `whole`; its bias comes besides.

        Shape: whole [..., D]; the map's argument and result the same.
        """
        raise NotProvided(self, "what is linear of it at its scale", "Use the logit lens.")


class LayerNorm(Norm):
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

    def at_scale(self, whole: Tensor) -> Callable[[Tensor], Tensor]:
        scale = self.weight * (whole.var(-1, correction=0, keepdim=True) + self.eps).rsqrt()
        return lambda x: (x - x.mean(-1, keepdim=True)) * scale

    def forward(self, x: Tensor) -> Tensor:
        # The kernel wants one type for all, and computes float16 and bfloat16 in float32 by itself.
        y = F.layer_norm(x.to(self.weight.dtype), self.weight.shape, self.weight, self.bias, self.eps)
        return y.to(x.dtype)

    def lower(self, program: fast.Program, x: fast.Buffer, parts: int = 1, in_place: bool = False) -> fast.Buffer:
        return program.norm(x, self.weight, self.bias, self.eps, root_mean=False, parts=parts, in_place=in_place)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}, bias={self.bias is not None}"


class RMSNorm(Norm):
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
        self.weight, self.bias = nn.Parameter(torch.empty(dim)), None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.weight, 0.0 if self.plus_one else 1.0)

    @property
    def scale(self) -> Tensor:
        """What the normalized numbers are multiplied by."""
        return 1.0 + self.weight if self.plus_one else self.weight

    def at_scale(self, whole: Tensor) -> Callable[[Tensor], Tensor]:
        scale = self.scale * (whole.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        return lambda x: x * scale

    def forward(self, x: Tensor) -> Tensor:
        scale = self.scale
        return fast.rms_norm(x.to(scale.dtype), scale, self.eps).to(x.dtype)

    def lower(self, program: fast.Program, x: fast.Buffer, parts: int = 1, in_place: bool = False) -> fast.Buffer:
        return program.norm(x, self.scale, None, self.eps, root_mean=True, parts=parts, in_place=in_place)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"


class ScaleNorm(Norm):
    """Divided by its length, then scaled by one number (Nguyen and Salazar 2019, https://arxiv.org/abs/1910.05895).

        y = g x / max(||x||, eps)

    over the last dimension (section 3.1). g begins at sqrt(D): the numbers then have a mean square of 1.

    Shape:
        x: [..., D], floating; y: the same. The length of float16 and bfloat16 is computed in float32.

    Args:
        c: the configuration.
        dim: D.
    """

    def __init__(self, c: config.ScaleNorm, dim: int) -> None:
        super().__init__()
        self.eps, self.dim = c.eps, dim
        self.weight, self.bias = nn.Parameter(torch.empty(1)), None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.weight, self.dim**0.5)

    def stream_axes(self) -> Mapping[str, int]:
        return {}

    def at_scale(self, whole: Tensor) -> Callable[[Tensor], Tensor]:
        length = cast("Tensor", torch.linalg.vector_norm(whole, dim=-1, keepdim=True))
        scale = self.weight / length.clamp(min=self.eps)
        return lambda x: x * scale

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(self.weight.dtype)
        return self.at_scale(wide)(wide).to(x.dtype)

    def lower(self, program: fast.Program, x: fast.Buffer, parts: int = 1, in_place: bool = False) -> fast.Buffer:
        # The length is sqrt(D) times the root mean square.
        root = self.dim**0.5
        weight, least = (self.weight / root).expand(self.dim), self.eps / root
        return program.norm(x, weight, None, least, root_mean=True, clamped=True, parts=parts, in_place=in_place)


def build_norm(c: config.Norm, dim: int) -> Norm:
    """The norm that `c` describes, over a last dimension of width `dim`."""
    match c:
        case config.LayerNorm():
            return LayerNorm(c, dim)
        case config.RMSNorm():
            return RMSNorm(c, dim)
        case config.ScaleNorm():
            return ScaleNorm(c, dim)
