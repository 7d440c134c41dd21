"""Token embeddings (section 3.4), and convolutions over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sublayer.config.model.feed_forward import Activation
from sublayer.config.model.norm import Norm
from sublayer.config.part import FLOAT32, Count, Factor, Part, Probability, Size

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
    width: tokens that are read together. others: further widths, which share the `dim` filters with it (Kim's 3, 4, 5).
    residual: whether x itself is added; without it the filters are all that is read on (Kim's), and the table may have
    a width of its own. dropout: on what they give.
    """

    width: Size = 3
    others: tuple[Size, ...] = ()
    activation: Activation = "relu"
    residual: bool = True
    dropout: Probability = 0.0

    def filters(self, dim: int) -> dict[int, int]:
        """How many filters of each width there are: as many of each, what is left over to the first."""
        widths = (self.width, *self.others)
        share = dim // len(widths)
        return dict.fromkeys(widths, share) | {self.width: dim - share * (len(widths) - 1)}

    def check(self, dim: int) -> None:
        """Raise `ValueError` where a width has no filters, or is named twice."""
        widths = (self.width, *self.others)
        if len(set(widths)) < len(widths):
            raise ValueError(f"embedding.convolution has the widths {widths}: name each once")
        if len(widths) > dim:
            raise ValueError(
                f"embedding.convolution has {len(widths)} widths, but dim = {dim} filters are all there are"
            )

    # --- arithmetic, with E the width of the vectors that are read

    def _numbers(self, dim: int, read: int) -> int:
        """Numbers in the matrices."""
        return sum(width * read * count for width, count in self.filters(dim).items())

    def parameters(self, dim: int, read: int) -> int:
        return self._numbers(dim, read) + dim

    def flops(self, dim: int, read: int) -> int:
        """Operations a token."""
        return 2 * self._numbers(dim, read)

    def kept(self, dim: int, read: int, size: int) -> int:
        """Bytes kept a token: the inputs, the activation's, and the dropout's mask."""
        return sum(self.filters(dim)) * read * size + dim * (size + (FLOAT32 if self.dropout else 0))


class Embedding(Part):
    """Token embeddings (section 3.4).

    scale: multiply by sqrt(dim). width: of the table, where it is not dim; a linear map leads to dim (ELECTRA), or a
    convolution without a residual path.
    initial_std: standard deviation that the vectors of tokens begin with; unset means (table's width) ** -0.5 where
    they are scaled, and 0.02 where not.
    token_types: kinds of token, each with a vector that is added (BERT's segments A and B); 0 means none.
    norm: on the sum. dropout: on the sum with the positions. convolution: after that, over neighbouring tokens of an
    encoder-only model; unset means none.
    """

    scale: bool = True
    width: Size | None = None
    initial_std: Factor | None = None
    token_types: Count = 0
    norm: Norm | None = None
    dropout: Probability = 0.0
    convolution: Convolution | None = None

    def table_width(self, dim: int) -> int:
        """Width of a token's vector, and of a position's that is added to it, in a model of width `dim`."""
        return dim if self.width is None else self.width

    @property
    def widens(self) -> bool:
        """Whether a linear map leads from the table's width to the stream's."""
        return self.width is not None and (self.convolution is None or self.convolution.residual)

    def check(self, kind: str, dim: int, *, tied: bool) -> None:
        """Raise `ValueError` where a model of this kind cannot have such an embedding.

        One that must not see what comes next has no convolution, which does. What a projection to the vocabulary is
        tied to is as wide as the stream.
        """
        if self.convolution is not None:
            if kind != "encoder-only":
                raise ValueError(f"embedding.convolution is set, but model.kind = '{kind}': it is for 'encoder-only'")
            self.convolution.check(dim)
        if tied and self.width not in (None, dim):
            raise ValueError(f"embedding.width = {self.width} is not dim = {dim}: such an embedding cannot be tied")

    def _read(self, dim: int) -> int:
        """Width of the vectors that the convolution reads."""
        return dim if self.widens else self.table_width(dim)

    def parameters(self, dim: int, vocab_size: int, tables: Sequence[str], *, sides: int = 1) -> dict[str, int]:
        """By part. tables: the names of those that are matrices of their own. sides: how many such embeddings stand."""
        width = self.table_width(dim)
        rest = {
            "embedding_types": self.token_types * width,
            "embedding_norms": 0 if self.norm is None else self.norm.parameters(width),
            "embedding_widening": (width + 1) * dim if self.widens else 0,
            "embedding_convolution": 0
            if self.convolution is None
            else self.convolution.parameters(dim, self._read(dim)),
        }
        return dict.fromkeys(tables, vocab_size * width) | {
            part: sides * numbers for part, numbers in rest.items() if numbers
        }

    def flops(self, dim: int) -> int:
        """Operations a token between the table and the stream: the map that widens, and the convolution."""
        widening = 2 * self.table_width(dim) * dim if self.widens else 0
        return widening + (0 if self.convolution is None else self.convolution.flops(dim, self._read(dim)))

    def kept(self, dim: int, size: int) -> int:
        """Bytes kept a token for the backward pass, with products in numbers of `size` bytes."""
        mask = dim * FLOAT32 if self.dropout else 0
        return mask + (0 if self.convolution is None else self.convolution.kept(dim, self._read(dim), size))
