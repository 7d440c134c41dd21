"""Batches: one frozen value for each shape of input.

Whatever its shape, a batch says which rows it is made of and how many `targets` it has: the part of the loss's
denominator that it brings, known without asking the device.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Protocol, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IGNORE = -100
"""The target where nothing is to be said."""


class AnyBatch(Protocol):
    @property
    def rows(self) -> NDArray[np.int64]: ...

    @property
    def targets(self) -> int: ...


class Movable:
    """What consists of tensors and can be put on a device."""

    def to(self, device: torch.device | str) -> Self:
        """The same batch with its tensors on `device`."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}  # pyright: ignore[reportArgumentType]
        moved = {name: t.to(device, non_blocking=True) for name, t in tensors.items() if isinstance(t, Tensor)}
        return cast("Self", replace(self, **moved))  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Batch(Movable):
    """B pairs, padded at the right. Shapes: B rows, S longest source, T longest target, end markers included.

    source: int64 [B, S], ids + end. source_lengths: int64 [B].
    target_in: int64 [B, T], start + ids: what the decoder is given.
    target_out: int64 [B, T], ids + end: what it is to say. target_lengths: int64 [B], of both.
    rows: int64 [B], a numpy array: which rows of the encoded pairs these are.
    targets: those that are not padding, over the whole batch.
    """

    source: Tensor
    source_lengths: Tensor
    target_in: Tensor
    target_out: Tensor
    target_lengths: Tensor
    rows: NDArray[np.int64]
    targets: int


@dataclass(frozen=True)
class TextBatch(Movable):
    """B texts, padded at the right to S tokens.

    tokens: int64 [B, S]. lengths: int64 [B].
    token_type_ids: int64 [B, S], 0 for the first text and 1 for the second, or None.
    segments: int64 [B, S], the number of each token's text where several stand in a row (padding has one of its own),
    or None where there is one a row.
    target: int64 [B, S], what is to be said at each place (`IGNORE`: nothing), or [B], the label of each text.
    targets: how many there are.
    """

    tokens: Tensor
    lengths: Tensor
    target: Tensor
    rows: NDArray[np.int64]
    targets: int
    token_type_ids: Tensor | None = None
    segments: Tensor | None = None


@dataclass(frozen=True)
class SimilarBatch(Movable):
    """B pairs of texts that belong together, each side padded at the right.

    left, right: int64 [B, S] and [B, T]. left_lengths, right_lengths: int64 [B].
    twins: boolean [B, B]; true at (i, j) where right text j is no wrong answer to left text i although i is not j:
    either side of pair j is the same text as that of pair i.
    """

    left: Tensor
    left_lengths: Tensor
    right: Tensor
    right_lengths: Tensor
    twins: Tensor
    rows: NDArray[np.int64]

    @property
    def targets(self) -> int:
        return len(self.rows)


def as_tensor(array: NDArray[np.int64]) -> Tensor:
    """Shares the array's memory; torch's own signature says nothing about the argument."""
    return torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]
