"""Rules by which the tensors of another library's checkpoint become ours, and ours theirs.

A rule says which tensors of theirs hold the same numbers as which of ours, and how one becomes the other. It only moves
numbers, never computes with them, so that a checkpoint that is read and written again is the same to the bit. A
family's rules must account for every tensor on either side; what they do not name is missing or unexpected.

Shapes: in the comments of each rule. H query heads, G key-value heads, d width of a head, D width of the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor

Move = Callable[[Sequence[Tensor]], Sequence[Tensor]]


def _unchanged(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return tensors


@dataclass(frozen=True)
class Rule:
    """`ours` and `theirs` hold the same numbers.

    ours, theirs: names of tensors; several of either where one side keeps in one tensor what the other splits.
    read: from theirs to ours; write: back.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    read: Move = field(default=_unchanged)
    write: Move = field(default=_unchanged)


def same(ours: str, theirs: str) -> Rule:
    """One tensor under another name."""
    return Rule((ours,), (theirs,))


def transposed(ours: str, theirs: str) -> Rule:
    """A matrix kept the other way around: [in, out] in theirs (GPT-2's Conv1D), [out, in] in ours."""

    def turn(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        return [tensors[0].t().contiguous()]

    return Rule((ours,), (theirs,), turn, turn)


def reshaped(ours: str, theirs: str, our_shape: Sequence[int], their_shape: Sequence[int]) -> Rule:
    """The same numbers in the same order in another shape."""
    return Rule(
        (ours,),
        (theirs,),
        lambda tensors: [tensors[0].reshape(tuple(our_shape))],
        lambda tensors: [tensors[0].reshape(tuple(their_shape))],
    )


def joined(ours: str, theirs: Sequence[str], sizes: Sequence[int]) -> Rule:
    """Several tensors of theirs one below the other (along the first dimension) in one of ours.

    Args:
        sizes: rows of each of theirs.
    """
    return Rule(
        (ours,),
        tuple(theirs),
        lambda tensors: [torch.cat(tuple(tensors))],
        lambda tensors: _parts(tensors[0], sizes),
    )


def _parts(tensor: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    return [part.contiguous() for part in cast("Sequence[Tensor]", tensor.split(list(sizes)))]


def stacked(ours: str, theirs: Sequence[str]) -> Rule:
    """Tensors of theirs, all of one shape, side by side along a new first dimension of ours (experts)."""
    return Rule(
        (ours,),
        tuple(theirs),
        lambda tensors: [torch.stack(tuple(tensors))],
        lambda tensors: [part.contiguous() for part in tensors[0]],
    )


def stacked_joined(ours: str, theirs: Sequence[Sequence[str]], sizes: Sequence[int]) -> Rule:
    """Several tensors of theirs one below the other, and that once for each expert along a new first dimension.

    Args:
        theirs: for each expert the names of what is joined. sizes: rows of each of those.
    """
    parts = len(sizes)

    def read(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        experts = [tensors[start : start + parts] for start in range(0, len(tensors), parts)]
        return [torch.stack([torch.cat(tuple(expert)) for expert in experts])]

    def write(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        return [part for expert in tensors[0] for part in _parts(expert, sizes)]

    return Rule((ours,), tuple(name for expert in theirs for name in expert), read, write)


def permuted(ours: str, theirs: str, order: Sequence[int]) -> Rule:
    """Row i of ours is row `order[i]` of theirs: fused projections whose heads stand in another order."""
    forward = torch.tensor(list(order))
    backward = torch.empty_like(forward)
    backward[forward] = torch.arange(len(forward))
    return Rule(
        (ours,),
        (theirs,),
        lambda tensors: [tensors[0].index_select(0, forward.to(tensors[0].device))],
        lambda tensors: [tensors[0].index_select(0, backward.to(tensors[0].device))],
    )


def prefixed(prefix_ours: str, prefix_theirs: str, rules: Iterable[Rule]) -> list[Rule]:
    """The rules with a prefix before every name on either side."""
    return [
        replace(
            rule,
            ours=tuple(prefix_ours + name for name in rule.ours),
            theirs=tuple(prefix_theirs + name for name in rule.theirs),
        )
        for rule in rules
    ]


def numbered(prefix_ours: str, prefix_theirs: str, layers: Iterable[Iterable[Rule]]) -> list[Rule]:
    """The rules of all layers; {} in the prefixes is a layer's number."""
    return [
        rule
        for number, rules in enumerate(layers)
        for rule in prefixed(prefix_ours.format(number), prefix_theirs.format(number), rules)
    ]


def affine(ours: str, theirs: str, *, bias: bool = True) -> list[Rule]:
    """Weight and, where there is one, bias of a linear map or a norm."""
    rules = [same(f"{ours}.weight", f"{theirs}.weight")]
    return [*rules, same(f"{ours}.bias", f"{theirs}.bias")] if bias else rules


def affine_joined(ours: str, theirs: Sequence[str], sizes: Sequence[int], *, bias: bool = True) -> list[Rule]:
    """Weight and bias of several linear maps that are one of ours: queries, keys and values; gate and up."""
    rules = [joined(f"{ours}.weight", [f"{name}.weight" for name in theirs], sizes)]
    if bias:
        rules.append(joined(f"{ours}.bias", [f"{name}.bias" for name in theirs], sizes))
    return rules
