"""Where a token stands (section 3.5): added to the embeddings, a rotation of queries and keys, a bias on the scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from sublayer.config.part import LARGEST_COUNT, Count, Factor, Part, Size

__all__ = [
    "Alibi", "Kerple", "Learned", "LinearScaling", "Llama3Scaling", "NoPosition", "NtkScaling", "Position",
    "RelativeBias", "Rotary", "RotaryScaling", "Sinusoidal", "Unscaled", "YarnScaling",
]  # fmt: skip

LARGEST_TABLE = 2**28
"""Numbers in a table of positions: 1,048,576 positions of heads of 128."""


@dataclass(frozen=True)
class Place:
    """Where positions act.

    name: of the stack, for messages. width: of the embeddings. heads, head_dim: of the self-attention. length: the
    longest text, in tokens. bidirectional: whether tokens also attend to those that follow.
    """

    name: str
    width: int
    heads: int
    head_dim: int
    length: int
    bidirectional: bool

    def require_small(self, width: int) -> None:
        """Raise where a table of positions, which no file holds, would fill the memory."""
        if self.length * width > LARGEST_TABLE:
            raise ValueError(
                f"max_length = {self.length:,} makes {self.name}.position a table of {self.length * width:,} numbers,"
                f" which is more than {LARGEST_TABLE:,}"
            )


class _Anywhere(Part):
    """turns: whether queries and keys are written anew, turned."""

    turns: ClassVar[bool] = False

    def check(self, place: Place) -> None:
        """Raise `ValueError` where such positions cannot act."""


class _Fixed(_Anywhere):
    """Nothing of these is learned."""

    def parameters(self, place: Place) -> int:
        return 0


class Sinusoidal(_Fixed):
    """Sines and cosines of fixed frequencies, added to the embeddings (section 3.5).

    `layout`: the paper interleaves sin and cos; "halves" puts all sines first, as Marian and tensor2tensor do.
    `spacing`: frequencies are base ** (-i / (D / 2)) in the paper, and base ** (-i / (D / 2 - 1)), which ends at
    exactly 1 / base, in tensor2tensor ("inclusive"). `offset`: the number of the first token's position.
    """

    type: Literal["sinusoidal"] = "sinusoidal"
    base: Factor = 10_000.0
    layout: Literal["interleaved", "halves"] = "interleaved"
    spacing: Literal["paper", "inclusive"] = "paper"
    offset: Count = 0

    def check(self, place: Place) -> None:
        place.require_small(place.width)
        if place.width % 2:
            raise ValueError(f"{place.name}.position is sinusoidal and needs an even width, not {place.width}")


class Learned(_Anywhere):
    """One trained vector a position, added to the embeddings (section 3.5, last paragraph).

    `offset`: rows of the table before that of the first token, unused (fairseq's models keep 2).
    """

    type: Literal["learned"] = "learned"
    offset: Count = 0

    def parameters(self, place: Place) -> int:
        return (place.length + self.offset) * place.width


class Unscaled(Part):
    """Rotary frequencies as trained."""

    type: Literal["none"] = "none"


class LinearScaling(Part):
    """Position interpolation: every frequency divided by `factor` (Chen et al. 2023)."""

    type: Literal["linear"] = "linear"
    factor: Factor


class NtkScaling(Part):
    """The base raised so that the slowest frequency is divided by `factor` and the fastest is kept ("NTK-aware")."""

    type: Literal["ntk"] = "ntk"
    factor: Factor


class YarnScaling(Part):
    """YaRN (Peng et al. 2023): interpolate slow frequencies, keep fast ones, and sharpen the attention a little.

    `magnitude`: the factor on sines and cosines; unset means the paper's, 0.1 ln(factor) + 1.
    """

    type: Literal["yarn"] = "yarn"
    factor: Factor
    original_length: Size
    beta_fast: Factor = 32.0
    beta_slow: Factor = 1.0
    magnitude: Factor | None = None


class Llama3Scaling(Part):
    """The scaling of Llama 3.1: by wavelength, with a smooth passage between kept and divided frequencies."""

    type: Literal["llama3"] = "llama3"
    factor: Factor
    original_length: Size
    low_frequency_factor: Factor = 1.0
    high_frequency_factor: Factor = 4.0

    @model_validator(mode="after")
    def _high_above_low(self) -> Self:
        if self.high_frequency_factor <= self.low_frequency_factor:
            raise ValueError(
                f"high_frequency_factor = {self.high_frequency_factor} is not more than"
                f" low_frequency_factor = {self.low_frequency_factor}"
            )
        return self


RotaryScaling = Annotated[
    Unscaled | LinearScaling | NtkScaling | YarnScaling | Llama3Scaling, Field(discriminator="type")
]


class Rotary(_Fixed):
    """Queries and keys rotated by their position (RoFormer, Su et al. 2021).

    `layout`: "halves" pairs dimension i with i + d/2 (Llama's), "interleaved" pairs 2i with 2i + 1 (the paper's).
    `fraction`: the part of each head that is rotated, from the front.
    """

    type: Literal["rotary"] = "rotary"
    base: Annotated[float, Field(gt=1.0, le=1e12)] = 10_000.0
    fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    layout: Literal["halves", "interleaved"] = "halves"
    scaling: RotaryScaling = Unscaled()
    turns: ClassVar[bool] = True

    def check(self, place: Place) -> None:
        rotated = int(place.head_dim * self.fraction)
        place.require_small(2 * rotated)
        if rotated < 2 or rotated % 2:
            raise ValueError(
                f"{place.name}.position rotates {rotated} dimensions of each head; it must be an even number"
            )


class Alibi(_Fixed):
    """A penalty on the scores that grows with the distance, at a slope of its own in each head (Press et al. 2021)."""

    type: Literal["alibi"] = "alibi"


class Kerple(_Anywhere):
    """A penalty r log(1 + s distance) on the scores; r and s are learned in each head (Chi et al. 2022)."""

    type: Literal["kerple"] = "kerple"

    def parameters(self, place: Place) -> int:
        return 2 * place.heads


class RelativeBias(_Anywhere):
    """T5's relative bias: a trained number per head and bucket of distances, added to the scores."""

    type: Literal["relative"] = "relative"
    buckets: Annotated[int, Field(ge=4, le=LARGEST_COUNT)] = 32
    max_distance: Size = 128

    def parameters(self, place: Place) -> int:
        return self.buckets * place.heads

    def check(self, place: Place) -> None:
        one_way = self.buckets // 2 if place.bidirectional else self.buckets
        if self.max_distance <= one_way // 2:
            raise ValueError(
                f"{place.name}.position.max_distance = {self.max_distance} is not more than {one_way // 2}, up to"
                f" which position.buckets = {self.buckets} give each distance a bucket of its own"
            )


class NoPosition(_Fixed):
    """No positions: order is seen only through the causal mask."""

    type: Literal["none"] = "none"


Position = Annotated[
    Sinusoidal | Learned | Rotary | Alibi | Kerple | RelativeBias | NoPosition, Field(discriminator="type")
]
