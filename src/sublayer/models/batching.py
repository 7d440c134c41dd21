"""Rows of tokens put together for a model."""

from __future__ import annotations

from collections.abc import Sequence

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
