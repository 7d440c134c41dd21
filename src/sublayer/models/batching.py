"""Rows of tokens put together for a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def padded(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Rows of ids as one tensor, padded at the right, and their lengths.

    Equal lengths are None: they need no mask, and without one the kernels are faster.

    Shape: -> int64 [B, S] and int64 [B].
    """
    lengths = [len(row) for row in rows]
    width = max(lengths)
    table = [[*row, *[pad_id] * (width - len(row))] for row in rows]
    ragged = None if min(lengths) == width else torch.tensor(lengths, device=device)
    return torch.tensor(table, dtype=torch.int64, device=device), ragged
