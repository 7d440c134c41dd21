"""Matrices shared out over the processes of a group, by what each part says of itself (`tensor_plan`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from sublayer.errors import ConfigError
from sublayer.nn.adapter import LowRank
from sublayer.nn.linear import Linear
from sublayer.nn.part import TensorPlan
from sublayer.nn.tensor_parallel import VocabularyShare, copied, summed


@dataclass(frozen=True)
class Cut:
    """Which part of a tensor a process has: of each of the sections that stand side by side along an axis, its share.

    shape: of the whole.
    """

    axis: int
    sections: tuple[int, ...]
    shape: torch.Size

    def part(self, whole: Tensor, rank: int, ranks: int) -> Tensor:
        """What the process `rank` of so many has of the whole."""
        split = cast("tuple[Tensor, ...]", whole.split(self.sections, self.axis))
        shares = [one.narrow(self.axis, *_bounds(one.shape[self.axis], rank, ranks)) for one in split]
        return torch.cat(shares, self.axis)

    def whole(self, parts: Sequence[Tensor]) -> Tensor:
        """The whole of what all processes have, by rank."""
        ranks = len(parts)
        sizes = [[_bounds(size, rank, ranks)[1] for size in self.sections] for rank in range(ranks)]
        split = [
            cast("tuple[Tensor, ...]", part.split(lengths, self.axis))
            for part, lengths in zip(parts, sizes, strict=True)
        ]
        return torch.cat([share for shares in zip(*split, strict=True) for share in shares], self.axis)


@dataclass(frozen=True)
class SharedMatrices:
    """What of a model was shared out. cuts: by the name of the parameter. within: the names of those that are whole,
    but whose gradients are a sum over the group."""

    cuts: Mapping[str, Cut]
    within: frozenset[str]


def share_matrices(model: nn.Module, group: DeviceMesh) -> SharedMatrices:
    """Leave of each part of the model what this process of the group has of it; it computes what it did before.

    Raises:
        ConfigError: a part cannot be shared out over so many. NotProvided: a part refuses.
    """
    ranks = group.size()
    if ranks == 1:
        return SharedMatrices({}, frozenset())
    sharing = _Sharing(model, group)
    modules = cast("Iterable[tuple[str, nn.Module]]", model.named_modules())
    for name, module in list(modules):
        plan = getattr(module, "tensor_plan", None)
        if plan is not None:
            sharing.part(name, module, plan())
    output = getattr(model, "output", None)
    if isinstance(output, Linear) and sharing.cuts:
        sharing.projection(output)
    return SharedMatrices(sharing.by_name(sharing.cuts), frozenset(sharing.by_name(sharing.within)))


class _Sharing:
    """A model while it is shared out. cuts, within: by parameter, the new ones."""

    def __init__(self, model: nn.Module, group: DeviceMesh) -> None:
        self.model, self.group = model, group
        self.rank, self.ranks = group.get_local_rank(), group.size()
        self.cuts: dict[Tensor, Cut] = {}
        self.within: dict[Tensor, None] = {}
        self._tables: list[nn.Embedding] = []
        self._new: dict[Tensor, nn.Parameter] = {}

    def by_name(self, found: Mapping[Tensor, Any]) -> dict[str, Any]:
        return {name: found[p] for name, p in self.model.named_parameters() if p in found}

    def part(self, name: str, module: nn.Module, plan: TensorPlan) -> None:
        for attribute in plan.counts:
            count: int = getattr(module, attribute)
            setattr(module, attribute, count // self._dividing(f"{name}.{attribute}", count))
        for each, sections in plan.colwise.items():
            for size in sections:
                self._dividing(f"{name}.{each}", size)
            self._colwise(cast(Linear, getattr(module, each)), tuple(sections))
        for each in plan.rowwise:
            self._rowwise(cast(Linear, getattr(module, each)))
        for each, axis in plan.axes.items():
            self._cut(module, each, axis)
        for each in plan.within:
            for parameter in cast(nn.Module, getattr(module, each)).parameters():
                self.within[parameter] = None
        if plan.vocabulary is not None:
            self._table(cast(nn.Embedding, getattr(module, plan.vocabulary)))

    def projection(self, output: Linear) -> None:
        """The projection to the vocabulary; its loss is that of all ranks' logits (`VocabularyShare`)."""
        tied = output.weight in self._new
        size = self.cuts[self._new[output.weight]].shape[0] if tied else output.weight.shape[0]
        self._colwise(output, (size,))
        output.vocabulary = self._share(size)

    def _colwise(self, linear: Linear, sections: tuple[int, ...]) -> None:
        self._cut(linear, "weight", 0, sections)
        self._cut(linear, "bias", 0, sections)
        if isinstance(linear, LowRank):
            self._cut(linear, "up", 0, sections)
            self.within[linear.down] = None
        linear.out_features = linear.weight.shape[0]
        linear.register_forward_pre_hook(lambda _, inputs: (copied(inputs[0], self.group),))

    def _rowwise(self, linear: Linear) -> None:
        self._dividing("the inputs of a linear map", linear.in_features)
        self._cut(linear, "weight", 1)
        if isinstance(linear, LowRank):
            self._cut(linear, "down", 1)
            self.within[linear.up] = None
        linear.in_features = linear.weight.shape[1]
        linear.register_forward_hook(partial(_summed_once, self.group, (self.ranks - 1) / self.ranks))

    def _table(self, table: nn.Embedding) -> None:
        if table in self._tables:
            return
        size = table.weight.shape[0]
        self._cut(table, "weight", 0)
        table.num_embeddings = table.weight.shape[0]
        cast(Any, table).forward = partial(_embedded, self._share(size), table)
        self._tables.append(table)

    def _share(self, size: int) -> VocabularyShare:
        start, count = _bounds(size, self.rank, self.ranks)
        return VocabularyShare(self.group, start, start + count, size)

    def _cut(self, module: nn.Module, name: str, axis: int, sections: tuple[int, ...] = ()) -> None:
        """Keep of a parameter or a table what this process has of it; one that is tied is cut once."""
        whole: Tensor | None = getattr(module, name)
        if whole is None:
            return
        if whole not in self._new:
            cut = Cut(axis, sections or (whole.shape[axis],), whole.shape)
            part = cut.part(whole.detach(), self.rank, self.ranks).clone()
            if not isinstance(whole, nn.Parameter):
                setattr(module, name, part)
                return
            self._new[whole] = nn.Parameter(part, requires_grad=whole.requires_grad)
            self.cuts[self._new[whole]] = cut
        setattr(module, name, self._new[whole])

    def _dividing(self, what: str, count: int) -> int:
        if count % self.ranks:
            raise ConfigError(
                f"training.parallel.tensor = {self.ranks} does not divide {what} = {count}",
                "Take a number that divides the heads, the groups of keys and values, and the hidden columns.",
            )
        return self.ranks


def _bounds(size: int, rank: int, ranks: int) -> tuple[int, int]:
    """Where the share of a rank begins, and how large it is."""
    start = size * rank // ranks
    return start, size * (rank + 1) // ranks - start


def _summed_once(group: DeviceMesh, others: float, linear: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    """The sum over the ranks, each of which has added the whole bias: its gradient is that of one of them."""
    bias = cast("Tensor | None", linear.bias)
    return summed(output if bias is None else output - bias.detach() * others, group)


def _embedded(share: VocabularyShare, table: nn.Embedding, tokens: Tensor) -> Tensor:
    return share.embed(tokens, table.weight)
