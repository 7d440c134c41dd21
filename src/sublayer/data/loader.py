"""Batches of tensors, in an order that is a pure function of (seed, epoch, step)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sublayer.config import Batching
from sublayer.data.batching import Rows, in_order, plan
from sublayer.data.encoding import EncodedPairs
from sublayer.errors import DataError


@dataclass(frozen=True)
class Batch:
    """B pairs, padded at the right. Shapes: B rows, S longest source, T longest target, end markers included.

    source: int64 [B, S], ids + end. source_lengths: int64 [B].
    target_in: int64 [B, T], start + ids: what the decoder is given.
    target_out: int64 [B, T], ids + end: what it is to say. target_lengths: int64 [B], of both.
    rows: int64 [B], a numpy array: which rows of the `EncodedPairs` these are.
    target_tokens: targets that are not padding, over the whole batch: the loss's denominator, known without asking
    the device.
    """

    source: Tensor
    source_lengths: Tensor
    target_in: Tensor
    target_out: Tensor
    target_lengths: Tensor
    rows: NDArray[np.int64]
    target_tokens: int

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on `device`."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ("source", "source_lengths", "target_in", "target_out", "target_lengths")
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Cursor:
    """A place in the data: the batch of number `step` (from 0) of the plan of `epoch` (from 0) is the next one."""

    epoch: int = 0
    step: int = 0


class Loader:
    """Endless batches. Its whole state is (seed, epoch, step): a `Cursor` is all that a checkpoint needs to hold."""

    def __init__(self, encoded: EncodedPairs, batching: Batching, seed: int) -> None:
        """
        Raises:
            DataError: a single pair is over the budget of `batching`.
        """
        self._encoded = encoded
        self._batching = batching
        self._seed = seed
        self._source_lengths = encoded.source_lengths
        self._target_lengths = encoded.target_lengths
        self._epoch = 0
        self._plan = self._make(0)

    def batches_per_epoch(self, epoch: int) -> int:
        """How many batches the plan of `epoch` has; it may differ a little from epoch to epoch."""
        return len(self.plan(epoch))

    def plan(self, epoch: int) -> list[Rows]:
        """The rows of each batch of `epoch`."""
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self._make(epoch)
        return self._plan

    def batches(self, cursor: Cursor = Cursor()) -> Iterator[tuple[Cursor, Batch]]:
        """From `cursor` on without end, each batch with the cursor that stands behind it.

        Raises:
            DataError: `cursor` is past the end of its epoch: the data or the batching is not what it was.
        """
        epoch, step = cursor.epoch, cursor.step
        batches = self.plan(epoch)
        if step > len(batches):
            raise DataError(
                f"epoch {epoch} has {len(batches)} batches, there is no batch {step}",
                "Resume with the data, tokenizer and batching that the run began with.",
            )
        while True:
            while step < len(batches):
                rows = batches[step]
                step += 1
                after = Cursor(epoch, step) if step < len(batches) else Cursor(epoch + 1, 0)
                yield after, collate(self._encoded, rows)
            epoch, step = epoch + 1, 0
            batches = self.plan(epoch)

    def _make(self, epoch: int) -> list[Rows]:
        return plan(self._source_lengths, self._target_lengths, self._batching, self._seed, epoch)


def validation(encoded: EncodedPairs, batching: Batching) -> Iterator[Batch]:
    """Every pair once, in an order without chance (by length with buckets, else as they stand); see `Batch.rows`.

    Raises:
        DataError: a single pair is over the budget of `batching`.
    """
    for rows in in_order(encoded.source_lengths, encoded.target_lengths, batching):
        yield collate(encoded, rows)


def collate(encoded: EncodedPairs, rows: NDArray[np.int64]) -> Batch:
    """The tensors of `rows`: start and end markers put on, padded to the longest."""
    sources, targets, pad = encoded.sources, encoded.targets, encoded.pad_id
    source_lengths = sources.starts[rows + 1] - sources.starts[rows] + 1
    target_lengths = targets.starts[rows + 1] - targets.starts[rows] + 1
    every = np.arange(len(rows))
    width = int(target_lengths.max())
    source = sources.padded(rows, width=int(source_lengths.max()), offset=0, fill=pad)
    source[every, source_lengths - 1] = encoded.end_id
    target_in = targets.padded(rows, width=width, offset=1, fill=pad)
    target_in[:, 0] = encoded.start_id
    target_out = targets.padded(rows, width=width, offset=0, fill=pad)
    target_out[every, target_lengths - 1] = encoded.end_id
    return Batch(
        source=_tensor(source),
        source_lengths=_tensor(source_lengths),
        target_in=_tensor(target_in),
        target_out=_tensor(target_out),
        target_lengths=_tensor(target_lengths),
        rows=rows,
        target_tokens=int(target_lengths.sum()),
    )


def _tensor(array: NDArray[np.int64]) -> Tensor:
    """Shares the array's memory; torch's own signature says nothing about the argument."""
    return torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]
