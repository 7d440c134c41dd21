"""Vectors of n-grams, beside those of tokens."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from sublayer.config.part import Part, Size

__all__ = ["NGrams"]

LONGEST = 8


class NGrams(Part):
    """The vectors of the n-grams that end at a token, added to the token's own (fastText, Joulin et al. 2017).

    What two words mean together ("not funny") then need not be found by a product. A table holds them by a hash of
    their tokens, so that those which are never met take no room, and a few share a row.
    sizes: how many tokens an n-gram has, 2 or more; each size is added. buckets: rows of the table.
    """

    sizes: Annotated[tuple[Annotated[int, Field(ge=2, le=LONGEST)], ...], Field(min_length=1)] = (2,)
    buckets: Size = 50_000

    @model_validator(mode="after")
    def _each_size_once(self) -> Self:
        for size in self.sizes:
            if self.sizes.count(size) > 1:
                raise ValueError(f"sizes names {size} twice")
        return self

    def parameters(self, width: int) -> int:
        return self.buckets * width
