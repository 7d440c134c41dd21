"""Batches of tensors, in an order that is a pure function of (seed, epoch, step)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from sublayer.config import Batching
from sublayer.data.batch import AnyBatch
from sublayer.data.batching import Rows, in_order, plan
from sublayer.data.examples.interface import Epoch, Examples
from sublayer.data.shards.windows import Windows
from sublayer.errors import DataError

BatchT = TypeVar("BatchT", bound=AnyBatch)


WINDOW = 1 << 24
"""Batches that a window has at most: those of window w have the numbers from w * WINDOW on."""


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

    What the batches are does not depend on how many read them: of each, a reader gets its share. What is read in
    windows (`data/shards/windows.py`) is planned a window at a time; other examples are one window.
    """

    def __init__(
        self, examples: Examples[BatchT] | Windows[BatchT], batching: Batching, seed: int, share: Share = ALONE
    ) -> None:
        """
        Raises:
            DataError: a single row is over the budget of `batching`.
        """
        self._examples = examples
        self._batching = batching
        self._seed = seed
        self._share = share
        self._count = examples.count if isinstance(examples, Windows) else 1
        self._held: tuple[tuple[int, int], Epoch[BatchT], list[Rows]] | None = (0, 0), *self._make(0, 0)

    def plan(self, epoch: int, window: int = 0) -> list[Rows]:
        """The rows of each batch of a window of `epoch`, numbered in the window; how many batches there are may differ
        a little from epoch to epoch."""
        return self._at(epoch, window)[1]

    def one(self) -> BatchT:
        """A batch of one row."""
        rows_of, batches = self._at(*((0, 0) if self._held is None else self._held[0]))
        return rows_of.collate(batches[0][:1])

    def batches(self, cursor: Cursor = Cursor()) -> Iterator[tuple[Cursor, BatchT | None]]:
        """From `cursor` on without end, the share of each batch with the cursor that stands behind it.

        It is None of a batch that has fewer rows than there are readers, and none for this one.

        Raises:
            DataError: `cursor` is past the end of its epoch: the data or the batching is not what it was.
        """
        epoch, (window, step) = cursor.epoch, divmod(cursor.step, WINDOW)
        batches: list[Rows] = self.plan(epoch, window) if window < self._count else []
        if window >= self._count or step > len(batches):
            had = f"{len(batches)} batches" if self._count == 1 else f"{self._count} windows of batches"
            raise DataError(
                f"epoch {epoch} has {had}, there is no batch {cursor.step}",
                "Resume with the data, tokenizer and batching that the run began with.",
            )
        while True:
            rows_of, batches = self._at(epoch, window)
            while step < len(batches):
                rows = batches[step]
                step += 1
                if step < len(batches):
                    after = Cursor(epoch, window * WINDOW + step)
                else:
                    after = Cursor(epoch, (window + 1) * WINDOW) if window + 1 < self._count else Cursor(epoch + 1, 0)
                own = rows[self._share.reader :: self._share.readers]
                yield after, rows_of.collate(own) if len(own) else None
            del rows_of
            epoch, window, step = (epoch, window + 1, 0) if window + 1 < self._count else (epoch + 1, 0, 0)

    def _at(self, epoch: int, window: int) -> tuple[Epoch[BatchT], list[Rows]]:
        if self._held is None or self._held[0] != (epoch, window):
            self._held = None  # its memory is wanted for the next
            self._held = (epoch, window), *self._make(epoch, window)
        return self._held[1:]

    def _make(self, number: int, window: int) -> tuple[Epoch[BatchT], list[Rows]]:
        examples, seed = self._examples, self._seed
        if isinstance(examples, Windows):
            examples, seed = examples.examples(seed, number, window)
        epoch = examples.epoch(seed, number)
        return epoch, plan(epoch.source_lengths, epoch.target_lengths, self._batching, seed, number)


def validation(examples: Examples[BatchT], batching: Batching) -> Iterator[BatchT]:
    """Every row once, in an order without chance (by length with buckets, else as they stand).

    Where rows are longer than those of the training, the budget of a batch is the longest of them.
    """
    fixed = examples.fixed()
    source, target = fixed.source_lengths, fixed.target_lengths
    longest = int((source + target).max(initial=0))
    for rows in in_order(source, target, batching.model_copy(update={"tokens": max(batching.tokens, longest)})):
        yield fixed.collate(rows)
