"""What stands on an encoder: the token behind a mask, a label for a text or for each token, a vector for a text.

Shapes: B batch, S positions, D width of the stream, C labels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sublayer import config
from sublayer.errors import InputError
from sublayer.nn.activation import ACTIVATIONS
from sublayer.nn.initial import glorot, small, zero_bias
from sublayer.nn.linear import Linear
from sublayer.nn.normalization import build_norm
from sublayer.nn.part import Part


class Transform(Part):
    """norm(act(x W + b)), D -> D: the layer between an encoder and what is read off it. W is `map`."""

    def __init__(self, activation: config.Activation, norm: config.Norm | None, bias: bool, dim: int) -> None:
        super().__init__()
        self.map = Linear(dim, dim, bias=bias)
        self.activation = ACTIVATIONS[activation]
        self.norm = nn.Identity() if norm is None else build_norm(norm, dim)

    def reset_parameters(self) -> None:
        glorot(self.map)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: [..., D] -> [..., D]."""
        return self.norm(self.activation(self.map(x)))


class Head(nn.Module):
    """What a head says of itself."""

    def linear(self, *, pooler: bool) -> tuple[Tensor, Tensor | None]:
        """The map [C, D] and its bias [C] from a pooled, or each, position to the scores of labels.

        Args:
            pooler: whether the model has one.

        Raises:
            InputError: there are no scores, or something on the way to them is not linear; says what.
        """
        raise InputError(f"{type(self).__name__} gives no logits to take apart", "Take another model.")

    def weights_of_positions(self, size: int) -> Tensor | None:
        """How much each of `size` positions counts in what is said of a text, [S]; None where each has its own."""
        return None


def bent(what: str) -> InputError:
    """What is raised where something between the stream and the logits is not linear."""
    return InputError(
        f"{what} stands between the stream and the logits and is not linear: no sum of parts gives the logit",
        "Use the logit lens, or gradient times input.",
    )


class MaskedLanguage(Head):
    """What the projection to the vocabulary reads: `transform` of each position."""

    def __init__(self, c: config.MaskedLanguage, dim: int) -> None:
        super().__init__()
        self.config = c
        self.transform = Transform(c.activation, c.norm, c.bias, dim)

    def forward(self, hidden: Tensor) -> Tensor:
        """Shape: [B, S, D] -> [B, S, D]."""
        return self.transform(hidden)

    def linear(self, *, pooler: bool) -> tuple[Tensor, Tensor | None]:
        raise bent(f"the {self.config.type} head's own layer ({self.config.activation})")


class _Labels(Head, Part):
    """A layer where there is one, and the map to the labels."""

    def __init__(self, c: config.Classification | config.Tagging, dim: int) -> None:
        super().__init__()
        self.config = c
        self.dropout = c.dropout
        self.transform = nn.Identity() if c.activation is None else Transform(c.activation, c.norm, c.bias, dim)
        self.labels = Linear(dim, len(c.labels))

    def reset_parameters(self) -> None:
        small(self.labels.weight)
        zero_bias(self.labels)

    def linear(self, *, pooler: bool) -> tuple[Tensor, Tensor | None]:
        if self.config.activation is not None:
            raise bent(f"the {self.config.type} head's own layer ({self.config.activation})")
        return self.labels.weight, self.labels.bias


class Classification(_Labels):
    """Scores of the labels for a whole text, from its pooled vector."""

    def __init__(self, c: config.Classification, dim: int) -> None:
        super().__init__(c, dim)
        self.pooling: config.Pooling = c.pooling

    def linear(self, *, pooler: bool) -> tuple[Tensor, Tensor | None]:
        found = super().linear(pooler=pooler)
        if self.pooling == "max":
            raise bent("pooling by maximum")
        if self.pooling == "class" and pooler:
            raise bent("the pooler's tanh")
        return found

    def weights_of_positions(self, size: int) -> Tensor:
        if self.pooling == "mean":
            return torch.full((size,), 1 / size, dtype=torch.float64)
        return F.one_hot(torch.tensor(0 if self.pooling == "class" else size - 1), size).double()

    def forward(self, hidden: Tensor, lengths: Tensor | None, pooled: Tensor | None) -> Tensor:
        """Shape: hidden [B, S, D], lengths [B], pooled [B, D] (a pooler's, for the class) -> [B, C]."""
        x = pooled if pooled is not None and self.pooling == "class" else pool(hidden, lengths, self.pooling)
        return self.labels(F.dropout(self.transform(x), self.dropout, self.training))


def meaning(c: config.Classification | config.Tagging, scores: Tensor) -> Tensor:
    """What the scores of labels mean: probabilities of which one is right, or each by itself, or the numbers themselves
    (as `transformers`' text-classification pipeline takes them). Shape: [..., C] -> [..., C]."""
    if isinstance(c, config.Classification):
        if c.problem == "regression":
            return scores
        if c.problem == "multi-label" or len(c.labels) == 1:
            return scores.sigmoid()
    return scores.softmax(dim=-1)


class Tagging(_Labels):
    """Scores of the labels for each token."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Shape: [B, S, D] -> [B, S, C]."""
        return self.labels(F.dropout(self.transform(hidden), self.dropout, self.training))


class SentenceEmbedding(Head):
    """One vector for a whole text."""

    def __init__(self, c: config.SentenceEmbedding) -> None:
        super().__init__()
        self.pooling: config.Pooling = c.pooling
        self.normalize = c.normalize

    def forward(self, hidden: Tensor, lengths: Tensor | None) -> Tensor:
        """Shape: hidden [B, S, D], lengths [B] -> [B, D]."""
        x = pool(hidden, lengths, self.pooling)
        return F.normalize(x, dim=-1) if self.normalize else x


def pool(hidden: Tensor, lengths: Tensor | None, how: config.Pooling) -> Tensor:
    """One vector for each text, of its real tokens.

    Shape: hidden [B, S, D], lengths [B] int64 (padding on the right), or None where all are full -> [B, D].
    """
    if how == "class":
        return hidden[:, 0]
    if lengths is None:
        match how:
            case "mean":
                return hidden.mean(dim=1)
            case "max":
                return hidden.amax(dim=1)
            case "last":
                return hidden[:, -1]
    place = torch.arange(hidden.shape[1], device=hidden.device)
    real = (place < lengths.unsqueeze(1)).unsqueeze(-1)
    match how:
        case "mean":
            return torch.where(real, hidden, 0).sum(dim=1) / lengths.unsqueeze(1).to(hidden.dtype)
        case "max":
            return torch.where(real, hidden, float("-inf")).amax(dim=1)
        case "last":
            return hidden[torch.arange(hidden.shape[0], device=hidden.device), lengths - 1]
