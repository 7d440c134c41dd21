"""Tensor parallelism: the ranks of a group compute a part together, each with some of its heads, columns or tokens.

    Y = f(X W1) W2 = sum over ranks of f(X W1[:, own]) W2[own, :]

(Megatron-LM, Shoeybi et al. 2019, https://arxiv.org/abs/1909.08053, section 3). Between parts every rank has the whole
stream. A part says by its `tensor_plan` what of it is shared out; what says nothing stays whole on every rank.

Here are the operations that stand where shared work begins and ends. Fused matrices (queries, keys and values in one)
are shared out section by section, which no placement of torch's DTensor can say; so the parts compute with plain
tensors, as they do on one rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.distributed.device_mesh import DeviceMesh


def copied(x: Tensor, group: DeviceMesh) -> Tensor:
    """x, the same on all ranks, as each uses it for its own share: the gradients of all are summed."""
    return cast(Tensor, _Copied.apply(x, group.get_group()))


def summed(x: Tensor, group: DeviceMesh) -> Tensor:
    """The sum of what each rank has; each gets its whole gradient."""
    return cast(Tensor, _Summed.apply(x, group.get_group()))


class _Copied(Function):
    """f of the paper's figure 3: the identity, and on the way back a sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        return _sum(upstream[0], ctx.group), None


class _Summed(Function):
    """g of the paper's figure 3: a sum, and on the way back the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        return _sum(x, group)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        return upstream[0], None


def _sum(x: Tensor, group: Any) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total


@dataclass(frozen=True)
class VocabularyShare:
    """The tokens from `start` to before `stop`, which a rank has, of `size`.

    Shapes: N tokens, V own tokens, D width.
    """

    group: DeviceMesh
    start: int
    stop: int
    size: int

    def embed(self, tokens: Tensor, weight: Tensor) -> Tensor:
        """The vector of each token. Shape: tokens [...] int64, weight [V, D] -> [..., D]."""
        own = (tokens >= self.start) & (tokens < self.stop)
        found = torch.nn.functional.embedding(torch.where(own, tokens - self.start, 0), weight)
        return summed(found * own.unsqueeze(-1), self.group)

    def cross_entropy(self, logits: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        """The loss of `tasks/losses.py`, summed over the tokens; the softmax is over all ranks' logits.

        Shape: logits [N, V], target [N] int64, of all tokens -> scalar.
        """
        highest = logits.detach().amax(dim=-1)
        dist.all_reduce(highest, dist.ReduceOp.MAX, group=self.group.get_group())
        total = summed((logits - highest.unsqueeze(-1)).exp().sum(dim=-1), self.group)
        own = (target >= self.start) & (target < self.stop)
        chosen = logits.gather(1, torch.where(own, target - self.start, 0).unsqueeze(1)).squeeze(1)
        wanted = summed(chosen * own, self.group)
        loss = highest + total.log() - (1 - label_smoothing) * wanted
        if label_smoothing:
            loss = loss - label_smoothing / self.size * summed(logits.sum(dim=-1), self.group)
        return loss.sum()
