"""Training rows that are read from shards in a random order, without a list of them in memory.

An epoch's order is a permutation that is computed (`permutation.py`). It is cut into windows of some 32 million ids.
The rows of one are read in the order in which they lie, become examples as though they were all the text there is, and
are sorted into batches of like length among themselves. What depends on chance depends on the seed, the epoch and the
number of the window. Text that is no longer than a window has one, whose order is that of text in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from sublayer.data.batch import AnyBatch
from sublayer.data.examples.interface import Examples
from sublayer.data.mixture import MixedRows
from sublayer.data.permutation import Permutation
from sublayer.data.ragged import Ragged
from sublayer.data.report import Report
from sublayer.data.shards.index import Shards

BatchT = TypeVar("BatchT", bound=AnyBatch)

IDS, ROWS = 1 << 25, 1 << 20
"""The most of a window, about: ids on average, and rows."""


@dataclass(frozen=True)
class Windows(Generic[BatchT]):
    """Rows of `shards` as examples, a window at a time.

    make: examples of ids, a column after the other. largest: ids and rows of a window, about.
    """

    shards: Shards
    make: Callable[[Sequence[Ragged], Report], Examples[BatchT]]
    largest: tuple[int, int] = (IDS, ROWS)

    def __len__(self) -> int:
        return len(self.shards)

    @property
    def report(self) -> Report:
        return self.shards.report

    @property
    def count(self) -> int:
        """Windows of an epoch."""
        ids = sum(shard.ids for shard in self.shards.index.shards)
        wanted = max(1, -(-ids // self.largest[0]), -(-len(self) // self.largest[1]))
        return min(wanted, len(self))

    def rows(self, seed: int, epoch: int, window: int) -> NDArray[np.int64]:
        """Which rows stand in a window, rising: int64 [n]."""
        first, last = (len(self) * number // self.count for number in (window, window + 1))
        places = np.arange(first, last)
        if self.shards.index.parts:
            return np.sort(self._mixture.rows(seed, epoch * len(self) + places))
        return places if self.count == 1 else np.sort(Permutation(len(self), seed, epoch)(places))

    @cached_property
    def _mixture(self) -> MixedRows:
        parts = self.shards.index.parts
        bounds = np.cumsum([0, *(part.shards for part in parts)])
        return MixedRows([part.weight for part in parts], self.shards.firsts[bounds])

    def examples(self, seed: int, epoch: int, window: int) -> tuple[Examples[BatchT], int]:
        """The rows of a window, and the seed of all else that is left to chance in it."""
        examples = self.make(self.shards.take(self.rows(seed, epoch, window)), self.report)
        if self.count == 1:
            return examples, seed
        drawn = hashlib.blake2b(f"{seed} {window}".encode(), digest_size=8).digest()
        return examples, int.from_bytes(drawn, "big") >> 1

    def arrays(self) -> Iterator[NDArray[np.generic]]:
        """What the ids are recognised by: the sums of their files."""
        for shard in self.shards.index.shards:
            yield np.frombuffer(bytes.fromhex(shard.sha256), dtype=np.uint8)
