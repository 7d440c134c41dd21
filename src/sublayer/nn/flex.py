"""Attention over intervals of keys on a GPU, by torch's flex attention: blocks that no query may see are skipped.

The kernel is compiled for the device, and gets what each query sees as two numbers, so no mask of S x T is kept. On a
CPU it would write the scores down; there attention goes in pieces (`nn/pieces.py`).

Source: Dong et al. 2024, https://arxiv.org/abs/2412.05496.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sublayer.fast import torch_compile

# Taken where so much of the pairs that the fused kernel computes, or less, is allowed: its blocks are of 128 tokens,
# so what is left out must be more than their edges.
SPARSE = 0.5

Blocks = Any
"""torch's BlockMask, which is imported late: that takes a second."""

_failed: set[torch.device] = set()


def blocks(begin: Tensor, end: Tensor, keys: int, *, causal: bool) -> Blocks | None:
    """Return what flex attention needs to know of a mask; None where it has no use there, or has failed before.

    Args:
        begin, end: the first key that each query sees, and the one after the last, [1 or B, S] int64. causal: whether
            every query sees its past at most, so that the fused kernel would compute half of the pairs.
    """
    device = begin.device
    if device in _failed:
        return None
    rows, queries = begin.shape
    whole = rows * queries * keys * (0.5 if causal else 1.0)
    # Reading a number waits for the device: once for all layers of a kind.
    if int((end - begin).clamp(min=0).sum()) > SPARSE * whole:
        return None

    def allowed(row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        row = row if rows > 1 else row * 0
        return (key >= begin[row, query]) & (key < end[row, query])

    try:
        make = _functions(device.type)[0]
        return make(allowed, rows if rows > 1 else None, None, queries, keys, device=str(device))
    except (ImportError, RuntimeError, NotImplementedError) as error:
        return _give_up(device, error)


def flex(query: Tensor, key: Tensor, value: Tensor, mask: Blocks, *, scale: float) -> Tensor | None:
    """Attention over what the mask allows; a query that sees nothing gets zeros. None where the kernel fails.

    Shape: query [B, H, S, d], key and value [B, G, T, d] -> [B, H, S, d].
    """
    try:
        attention = _functions(query.device.type)[1]
        return attention(query, key, value, block_mask=mask, scale=scale, enable_gqa=query.shape[1] != key.shape[1])
    except (ImportError, RuntimeError, NotImplementedError) as error:
        return _give_up(query.device, error)


@cache
def _functions(kind: str) -> tuple[Any, Any]:
    """What makes the blocks, and the attention; compiled, but on a CPU, where only tests come here."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    if kind == "cpu":
        return create_block_mask, flex_attention
    return torch_compile(create_block_mask), torch_compile(flex_attention)


def _give_up(device: torch.device, error: Exception) -> None:
    """Say it once; from then on the mask is used."""
    _failed.add(device)
    reason = str(error).strip().partition("\n")[0]
    warnings.warn(f"torch's flex attention does not work on {device} ({reason}); masks are used instead", stacklevel=3)
