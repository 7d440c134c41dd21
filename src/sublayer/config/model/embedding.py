"""Token embeddings (section 3.4), and a convolution over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sublayer.config.model.feed_forward import Activation
from sublayer.config.model.norm import Norm
from sublayer.config.part import FLOAT32, Count, Part, Probability, Size

__all__ = ["Convolution", "Embedding"]

Tied = Literal["all", "target", "embeddings", "none"]
"""Which of source embedding, target embedding and output projection are one matrix (section 3.4)."""


def tables(tied: Tied) -> Sequence[str]:
    """The tables of a source and a target that are matrices of their own."""
    return ("embedding",) if tied in ("all", "embeddings") else ("source_embedding", "target_embedding")


def projection(dim: int, vocab_size: int, *, tied: bool, bias: bool) -> int:
    """Parameters of a projection to the vocabulary, beside the table that it is tied to."""
    return ((not tied) * dim + bias) * vocab_size


class Convolution(Part):
    """Each token's vector with its neighbours' added: x + act(W [width vectors around] + b) (after Kim 2014).

    It sees n-grams, which attention has to learn to see: on little text the larger gain.
    width: tokens that are read together, an odd number. dropout: on what is added.
    """

    width: Annotated[int, Field(ge=1)] = 3
    activation: Activation = "relu"
    dropout: Probability = 0.0

    @model_validator(mode="after")
    def _centred(self) -> Self:
        if self.width % 2 == 0:
            raise ValueError(f"width = {self.width} is not odd: as many tokens are read before a token as after it")
        return self

    def parameters(self, dim: int) -> int:
        return (self.width * dim + 1) * dim

    def flops(self, dim: int) -> int:
        """Operations a token."""
        return 2 * self.width * dim * dim

    def kept(self, dim: int, size: int) -> int:
        """Bytes kept a token: its input, its activation's, and the dropout's mask."""
        return dim * (self.width * size + size + (FLOAT32 if self.dropout else 0))


class Embedding(Part):
    """Token embeddings (section 3.4).

    scale: multiply by sqrt(dim). width: of the table, where it is not dim; a linear map leads to dim (ELECTRA).
    token_types: kinds of token, each with a vector that is added (BERT's segments A and B); 0 means none.
    norm: on the sum. dropout: on the sum with the positions. convolution: after that, over neighbouring tokens of an
    encoder-only model; unset means none.
    """

    scale: bool = True
    width: Size | None = None
    token_types: Count = 0
    norm: Norm | None = None
    dropout: Probability = 0.0
    convolution: Convolution | None = None

    def table_width(self, dim: int) -> int:
        """Width of a token's vector, and of a position's that is added to it, in a model of width `dim`."""
        return dim if self.width is None else self.width

    def require_width(self, dim: int, *, tied: bool) -> None:
        """Raise where a projection to the vocabulary is to be an embedding of another width."""
        if tied and self.width not in (None, dim):
            raise ValueError(f"embedding.width = {self.width} is not dim = {dim}: such an embedding cannot be tied")

    def require_no_convolution(self, kind: str) -> None:
        """Raise where a model that must not see what comes next has a convolution, which does."""
        if self.convolution is not None:
            raise ValueError(f"embedding.convolution is set, but model.kind = '{kind}': it is for 'encoder-only'")

    def parameters(self, dim: int, vocab_size: int, tables: Sequence[str], *, sides: int = 1) -> dict[str, int]:
        """By part. tables: the names of those that are matrices of their own. sides: how many such embeddings stand."""
        width = self.table_width(dim)
        rest = {
            "embedding_types": self.token_types * width,
            "embedding_norms": 0 if self.norm is None else self.norm.parameters(width),
            "embedding_widening": 0 if self.width is None else (self.width + 1) * dim,
            "embedding_convolution": 0 if self.convolution is None else self.convolution.parameters(dim),
        }
        return dict.fromkeys(tables, vocab_size * width) | {
            part: sides * numbers for part, numbers in rest.items() if numbers
        }

    def flops(self, dim: int) -> int:
        """Operations a token between the table and the stream: the map that widens, and the convolution."""
        widening = 0 if self.width is None else 2 * self.width * dim
        return widening + (0 if self.convolution is None else self.convolution.flops(dim))

    def kept(self, dim: int, size: int) -> int:
        """Bytes kept a token for the backward pass, with products in numbers of `size` bytes."""
        mask = dim * FLOAT32 if self.dropout else 0
        return mask + (0 if self.convolution is None else self.convolution.kept(dim, size))
