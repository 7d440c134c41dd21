"""What stands on an encoder: the token behind a mask, a label for a text or for each token, a vector for a text.

D width of the stream, V vocabulary, C labels.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sublayer.config.model.embedding import projection
from sublayer.config.model.feed_forward import Activation
from sublayer.config.model.norm import LayerNorm, Norm
from sublayer.config.part import Part, Probability, Size

__all__ = [
    "Classification", "Head", "MaskedLanguage", "NoHead", "Pooling", "Problem", "SentenceEmbedding", "Tagging",
]  # fmt: skip

Pooling = Literal["class", "mean", "max", "last"]


class _Head(Part):
    """projects: whether the last step is a projection to the vocabulary."""

    projects: ClassVar[bool] = False


class _Bare(_Head):
    """Nothing is learned here, and nothing multiplied."""

    def parameters(self, dim: int, vocab_size: int) -> dict[str, int]:
        return {}

    def flops(self, dim: int, vocab_size: int, length: int, *, pooler: bool) -> int:
        return 0


class NoHead(_Bare):
    """The encoder's output itself."""

    type: Literal["none"] = "none"


class MaskedLanguage(_Head):
    """The token that stands behind a mask: project(norm(act(x W + b))) (BERT, Devlin et al. 2019).

    tied: the projection's matrix is the embedding's. bias: of the first map; output_bias: of the projection.
    """

    type: Literal["masked-language"] = "masked-language"
    activation: Activation = "gelu"
    norm: Norm = LayerNorm()
    tied: bool = True
    bias: bool = True
    output_bias: bool = True
    projects: ClassVar[bool] = True

    def parameters(self, dim: int, vocab_size: int) -> dict[str, int]:
        output = projection(dim, vocab_size, tied=self.tied, bias=self.output_bias)
        return {"head": (dim + self.bias) * dim + self.norm.parameters(dim), "output": output}

    def flops(self, dim: int, vocab_size: int, length: int, *, pooler: bool) -> int:
        """Operations of a whole text, of which every position is projected."""
        return length * 2 * dim * (dim + vocab_size)


Problem = Literal["single-label", "multi-label", "regression"]
"""What the scores of a text mean: one of the labels is right, any of them may be, or each is a number."""


def _labelling(head: Classification | Tagging, dim: int) -> dict[str, int]:
    """Parameters of a map D -> C, and of a layer D -> D before it, where there is one."""
    layer = (dim + head.bias) * dim + (0 if head.norm is None else head.norm.parameters(dim))
    return {"head": (0 if head.activation is None else layer) + (dim + 1) * len(head.labels)}


class Classification(_Head):
    """Scores of labels for the whole text.

    problem: what they mean. A single label of the first kind is right or wrong.
    pooling: which vector stands for the text: the first token's ("class"), the mean or maximum of all, or the last
    token's. activation: of a layer dim -> dim between the pooled vector and the labels; unset means no such layer.
    norm: after that layer. bias: of that layer. dropout: before the labels.
    """

    type: Literal["classification"] = "classification"
    labels: tuple[str, ...] = ()
    problem: Problem = "single-label"
    pooling: Pooling = "class"
    activation: Activation | None = "tanh"
    norm: Norm | None = None
    bias: bool = True
    dropout: Probability = 0.0

    def parameters(self, dim: int, vocab_size: int) -> dict[str, int]:
        return _labelling(self, dim)

    def flops(self, dim: int, vocab_size: int, length: int, *, pooler: bool) -> int:
        """Operations of a whole text, which is pooled first."""
        layers = (pooler and self.pooling == "class") + (self.activation is not None)
        return 2 * dim * (layers * dim + len(self.labels))


class Tagging(_Head):
    """One label for each token.

    activation: of a layer dim -> dim before the labels; unset means no such layer. norm: after that layer. bias: of
    that layer. dropout: before the labels.
    """

    type: Literal["tagging"] = "tagging"
    labels: tuple[str, ...] = ()
    activation: Activation | None = None
    norm: Norm | None = None
    bias: bool = True
    dropout: Probability = 0.0

    def parameters(self, dim: int, vocab_size: int) -> dict[str, int]:
        return _labelling(self, dim)

    def flops(self, dim: int, vocab_size: int, length: int, *, pooler: bool) -> int:
        """Operations of a whole text."""
        return length * 2 * dim * ((self.activation is not None) * dim + len(self.labels))


class SentenceEmbedding(_Bare):
    """A vector for the whole text.

    normalize: to length 1. longest: tokens, special ones included, that a text is cut to before it is embedded; unset
    means the model's max_length (many models are trained on shorter texts than they have positions for).
    """

    type: Literal["sentence-embedding"] = "sentence-embedding"
    pooling: Pooling = "mean"
    normalize: bool = True
    longest: Size | None = None


Head = Annotated[NoHead | MaskedLanguage | Classification | Tagging | SentenceEmbedding, Field(discriminator="type")]
