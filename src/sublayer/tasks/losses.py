"""The training loss: cross-entropy with label smoothing (section 5.4), over real target tokens only.

    q(v) = (1 - eps) [v = y] + eps / V
    loss = - sum over v of q(v) log p(v) = logsumexp(z) - (1 - eps) z_y - eps mean(z)

summed over the tokens and divided by the number of target tokens of the whole optimizer step, so that cutting a step
into several batches changes nothing.

Projection and loss are one function here, computed some tokens at a time, gradient included: the logits of a batch
(tokens x vocabulary, by far the largest tensor of a step) never stand in memory at once, and their gradient takes
their own place.

Shapes: N tokens, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

from sublayer.data.batch import IGNORE
from sublayer.fast import fastest_products


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of a projection's logits.

    label_smoothing: eps. ignored: the target where nothing is to be said.
    piece: logits (tokens * vocabulary) in memory at a time.
    """

    label_smoothing: float
    ignored: int = IGNORE
    piece: int = 2**23

    def __call__(self, output: nn.Linear, hidden: Tensor, target: Tensor, tokens: int) -> Tensor:
        """The sum over the real targets, divided by `tokens`.

        Args:
            output: the projection to the vocabulary. tokens: real targets of the whole optimizer step.

        Shape: hidden [B, T, D], target [B, T] int64 -> scalar, float32 (or float64).
        """
        flat = target.flatten()
        real = (flat != self.ignored).nonzero().squeeze(1)
        chosen = hidden.flatten(0, 1).index_select(0, real)
        apply: Callable[..., Tensor] = _ProjectedCrossEntropy.apply  # pyright: ignore[reportUnknownVariableType]
        return apply(chosen, output.weight, output.bias, flat[real], self.label_smoothing, 1.0 / tokens, self.piece)


def projected(model: Any, loss: CrossEntropy, hidden: Tensor, target: Tensor, total: int) -> Tensor:
    """`loss` of a model's own projection, with whatever the model does to the logits besides.

    Shape: hidden [B, T, D], target [B, T] int64 -> scalar.
    """
    share = model.output.vocabulary
    if share is None and getattr(model.config, "logit_softcap", None) is None:
        return loss(model.output, hidden, target, total)
    # Logits that are bent have another gradient than the product's: torch's own loss, on the real targets only.
    real = target != loss.ignored
    logits = model.project(hidden[real])
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if share is not None:
        return share.cross_entropy(logits, target[real], loss.label_smoothing) / total
    return F.cross_entropy(logits, target[real], reduction="sum", label_smoothing=loss.label_smoothing) / total


ROWS = 128
"""Rows of the projection are filled up to a multiple, where a piece has room for so many: every batch has another
number of targets, and oneDNN makes a program for each shape that it meets, which takes longer than the product
(docs/machine.md)."""


class _ProjectedCrossEntropy(Function):
    """sum(loss(hidden W^T + b, target)) * scale; the gradients are computed on the way forward."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        smoothing: float,
        scale: float,
        piece: int,
    ) -> Tensor:
        kind = hidden.device.type
        product = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        wide = torch.promote_types(product, torch.float32)
        hidden_learns, weight_learns, bias_learns = ctx.needs_input_grad[:3]
        vocabulary = weight.shape[0]
        with torch.autocast(kind, enabled=False):
            real, rows = hidden.shape[0], max(1, piece // vocabulary)
            multiple = ROWS if rows >= ROWS else 1
            rows -= rows % multiple
            states, matrix = F.pad(hidden.to(product), (0, 0, 0, -real % multiple)), weight.to(product)
            offset = None if bias is None else bias.to(product)
            total = torch.zeros((), dtype=wide, device=hidden.device)
            to_hidden = torch.empty_like(states) if hidden_learns else None
            to_weight: Tensor | None = None
            to_bias = torch.zeros_like(bias) if bias is not None and bias_learns else None
            by = fastest_products(states[:rows], matrix)
            for start in range(0, states.shape[0], rows):
                part, wanted = states[start : start + rows], target[start : start + rows].unsqueeze(1)
                logits = by.forward(part, matrix, offset)
                total += _smoothed(logits[: len(wanted)], wanted, smoothing, wide, to_bias)
                gradient = logits  # overwritten in place by the sum's gradient
                gradient[len(wanted) :] = 0
                if to_hidden is not None:
                    to_hidden[start : start + rows] = by.to_input(gradient, matrix)
                if weight_learns:
                    own = by.to_weight(gradient, part)
                    to_weight = own.to(weight.dtype) if to_weight is None else to_weight.add_(own)
            if to_hidden is not None:
                to_hidden = to_hidden[:real].to(hidden.dtype)
            if weight_learns and to_weight is None:  # nothing but padding
                to_weight = torch.zeros_like(weight)
        ctx.gradients = (to_hidden, to_weight, to_bias)
        ctx.scale = scale
        return total * scale

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        factor = upstream[0] * ctx.scale
        gradients = tuple(None if g is None else g.mul_(factor.to(g.dtype)) for g in ctx.gradients)
        ctx.gradients = None
        return *gradients, None, None, None, None


def _smoothed(logits: Tensor, wanted: Tensor, smoothing: float, wide: torch.dtype, to_bias: Tensor | None) -> Tensor:
    """The loss summed over N tokens; `logits` become its gradient, softmax(z) - q, whose sum is added to `to_bias`.

    A few rows at a time, so that what is computed in the wider type never leaves a CPU's cache.

    Shape: logits [N, V], wanted [N, 1], to_bias [V] -> scalar of type `wide`.
    """
    tokens, vocabulary = logits.shape
    total = torch.zeros((), dtype=wide, device=logits.device)
    rows = tokens if logits.device.type != "cpu" else max(1, 2**18 // vocabulary)
    less = torch.full((), smoothing - 1, dtype=wide, device=logits.device)
    for some, theirs in zip(logits.split(rows), wanted.split(rows), strict=True):  # pyright: ignore[reportUnknownArgumentType]
        # Widened once: to reduce numbers in half precision takes a CPU three times as long.
        z = some.to(wide)
        total -= (1 - smoothing) * z.gather(1, theirs).sum()
        if smoothing:
            total -= smoothing / vocabulary * z.sum()
        p = z.softmax(dim=-1)
        # The probability of the best token is at least 1 / V, so its logarithm is safe; a rare target's is not.
        total += (z.amax(dim=-1) - p.amax(dim=-1).log()).sum()
        p.sub_(smoothing / vocabulary).scatter_add_(1, theirs, less.expand_as(theirs))
        some.copy_(p)
        if to_bias is not None:
            to_bias += p.sum(dim=0)
    return total
