"""Batches of tensors, in an order that is a pure function of (seed, epoch, step)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from sublayer.config import Batching
from sublayer.data.batch import AnyBatch
from sublayer.data.batching import Rows, in_order, plan
from sublayer.data.examples.interface import Epoch, Examples
from sublayer.errors import DataError

BatchT = TypeVar("BatchT", bound=AnyBatch)


@dataclass(frozen=True)
class Cursor:
    """A place in the data: the batch of number `step` (from 0) of the plan of `epoch` (from 0) is the next one."""

    epoch: int = 0
    step: int = 0


@dataclass(frozen=True)
class Share:
    """The rows of each batch that one of several readers takes: those of number `reader` and every `readers` after."""

    reader: int = 0
    readers: int = 1


ALONE = Share()


class Loader(Generic[BatchT]):
    """Endless batches. Its whole state is (seed, epoch, step): a `Cursor` is all that a checkpoint needs to hold.

    What the batches are does not depend on how many read them: of each, a reader gets its share.
    """

    def __init__(self, examples: Examples[BatchT], batching: Batching, seed: int, share: Share = ALONE) -> None:
        """
        Raises:
            DataError: a single row is over the budget of `batching`.
        """
        self._examples = examples
        self._batching = batching
        self._seed = seed
        self._share = share
        self._number, self._epoch, self._plan = 0, *self._make(0)

    def plan(self, epoch: int) -> list[Rows]:
        """The rows of each batch of `epoch`; how many batches there are may differ a little from epoch to epoch."""
        return self._at(epoch)[1]

    def one(self) -> BatchT:
        """A batch of one row."""
        return self._epoch.collate(self._plan[0][:1])

    def batches(self, cursor: Cursor = Cursor()) -> Iterator[tuple[Cursor, BatchT | None]]:
        """From `cursor` on without end, the share of each batch with the cursor that stands behind it.

        It is None of a batch that has fewer rows than there are readers, and none for this one.

        Raises:
            DataError: `cursor` is past the end of its epoch: the data or the batching is not what it was.
        """
        epoch, step = cursor.epoch, cursor.step
        rows_of, batches = self._at(epoch)
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
                own = rows[self._share.reader :: self._share.readers]
                yield after, rows_of.collate(own) if len(own) else None
            epoch, step = epoch + 1, 0
            rows_of, batches = self._at(epoch)

    def _at(self, epoch: int) -> tuple[Epoch[BatchT], list[Rows]]:
        if epoch != self._number:
            self._number, self._epoch, self._plan = epoch, *self._make(epoch)
        return self._epoch, self._plan

    def _make(self, number: int) -> tuple[Epoch[BatchT], list[Rows]]:
        epoch = self._examples.epoch(self._seed, number)
        return epoch, plan(epoch.source_lengths, epoch.target_lengths, self._batching, self._seed, number)


def validation(examples: Examples[BatchT], batching: Batching) -> Iterator[BatchT]:
    """Every row once, in an order without chance (by length with buckets, else as they stand).

    Where rows are longer than those of the training, the budget of a batch is the longest of them.
    """
    fixed = examples.fixed()
    source, target = fixed.source_lengths, fixed.target_lengths
    longest = int((source + target).max(initial=0))
    for rows in in_order(source, target, batching.model_copy(update={"tokens": max(batching.tokens, longest)})):
        yield fixed.collate(rows)
