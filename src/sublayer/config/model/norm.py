"""The norms of the residual stream, of queries and keys, and of heads."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sublayer.config.part import FLOAT32, Epsilon, Part

__all__ = ["LayerNorm", "Norm", "RMSNorm", "ScaleNorm"]


class _Norm(Part):
    """gathers: whether its kernel wants the numbers of all heads side by side, and so keeps a copy of its input."""

    gathers: ClassVar[bool] = False

    def kept(self, dim: int) -> int:
        """Return the bytes kept a token for the backward pass: the input, in float32."""
        return dim * FLOAT32


class LayerNorm(_Norm):
    """Mean and variance removed, then scaled and shifted (Ba et al. 2016)."""

    type: Literal["layer"] = "layer"
    eps: Epsilon = 1e-5
    bias: bool = True
    gathers: ClassVar[bool] = True

    def parameters(self, dim: int) -> int:
        return (1 + self.bias) * dim


class RMSNorm(_Norm):
    """Divided by the root mean square, then scaled (Zhang and Sennrich 2019).

    plus_one: the scale is 1 + weight, so that weights begin at 0 (Gemma).
    """

    type: Literal["rms"] = "rms"
    eps: Epsilon = 1e-6
    plus_one: bool = False

    def parameters(self, dim: int) -> int:
        return dim


class ScaleNorm(_Norm):
    """Divided by its length, then multiplied by one learned number (Nguyen and Salazar 2019)."""

    type: Literal["scale"] = "scale"
    eps: Epsilon = 1e-5

    def parameters(self, dim: int) -> int:
        return 1


Norm = Annotated[LayerNorm | RMSNorm | ScaleNorm, Field(discriminator="type")]
