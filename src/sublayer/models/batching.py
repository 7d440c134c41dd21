"""Rows of tokens put together for a model: by length, and padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def padded(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of ids as one tensor, padded at the right, and their lengths.

    Shape: -> int64 [B, S] and int64 [B].
    """
    lengths = [len(row) for row in rows]
    width = max(lengths)
    table = [[*row, *[pad_id] * (width - len(row))] for row in rows]
    return torch.tensor(table, dtype=torch.int64, device=device), torch.tensor(lengths, device=device)


def by_length(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Rows by falling length, as many at a time as `tokens` allow: what needs most memory comes first."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
