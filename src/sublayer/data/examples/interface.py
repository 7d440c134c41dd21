"""What the loader asks of encoded text.

Whatever depends on chance (which documents share a row, which tokens are hidden) is a pure function of the seed, the
number of the epoch and the row, so that a resumed run sees what an uninterrupted one does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from sublayer.data.report import Report

BatchT_co = TypeVar("BatchT_co", covariant=True)


class Epoch(Protocol[BatchT_co]):
    """The rows of one epoch.

    source_lengths, target_lengths: int64 [N], tokens of each row; the target's are 0 where a row is one text.
    """

    @property
    def source_lengths(self) -> NDArray[np.int64]: ...

    @property
    def target_lengths(self) -> NDArray[np.int64]: ...

    def collate(self, rows: NDArray[np.int64]) -> BatchT_co:
        """The batch of these rows."""
        ...


class Examples(Protocol[BatchT_co]):
    """Encoded text. report: what of the text is in it, and what was left out and why."""

    @property
    def report(self) -> Report: ...

    def __len__(self) -> int:
        """How many pairs, documents or texts there are."""
        ...

    def epoch(self, seed: int, number: int) -> Epoch[BatchT_co]:
        """The rows as they are in that epoch (from 0)."""
        ...

    def fixed(self) -> Epoch[BatchT_co]:
        """The rows as they are evaluated on: always the same."""
        ...

    def arrays(self) -> Iterator[NDArray[np.generic]]:
        """Everything that was encoded, to recognise it by."""
        ...
