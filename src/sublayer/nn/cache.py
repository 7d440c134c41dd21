"""Keys and values kept while decoding.

One buffer for all layers, allocated once: appending copies one position, `reorder` is one gather (beam search),
`truncate` is a number (speculation). Nothing grows by concatenation.

Shapes: L layers, B rows, G key-value heads, C capacity, T positions held, d width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sublayer.errors import InputError


class KeyValueCache:
    """Keys and values of the positions seen so far, of every layer.

    buffer: [L, 2, B, G, C, d]; `length`: T, how many positions are held, the same in every row.
    """

    def __init__(
        self, *, layers: int, rows: int, heads: int, capacity: int, width: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        # Empty, for whoever appends gets views that end at `length`: what lies past it is never read, not even masked.
        self.buffer = torch.empty(layers, 2, rows, heads, capacity, width, dtype=dtype, device=device)
        self.length = 0

    @property
    def capacity(self) -> int:
        return self.buffer.shape[4]

    @property
    def bytes(self) -> int:
        return self.buffer.numel() * self.buffer.element_size()

    def layer(self, index: int) -> LayerCache:
        """The view that one attention appends to."""
        return LayerCache(self, index)

    def advance(self, count: int) -> None:
        """Count the positions that every layer has appended."""
        self.length += count

    def require_room(self, count: int) -> None:
        """Raise `InputError` where `count` more positions do not fit."""
        if self.length + count > self.capacity:
            raise InputError(
                f"the cache holds {self.capacity} positions; {self.length} are taken and {count} more were asked for",
                "Start with a larger capacity.",
            )

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes what row `rows[i]` was; there may be fewer rows than before.

        Shape: rows [B'], integer.
        """
        held = self.buffer[:, :, :, :, : self.length]
        if rows.shape[0] == self.buffer.shape[2]:
            # Only rows that change are copied, and some of a layer at a time, which then stay in the processor's cache.
            moved = (rows != torch.arange(rows.shape[0], device=rows.device)).nonzero().squeeze(1)
            origins = rows[moved]
            for part in held.flatten(0, 1).unbind(0):
                part.index_copy_(0, moved, part.index_select(0, origins))
        else:
            other = self.buffer.new_empty(*self.buffer.shape[:2], rows.shape[0], *self.buffer.shape[3:])
            other[:, :, :, :, : self.length] = held.index_select(2, rows)
            self.buffer = other

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate a cache of {self.length} positions to {length}")
        self.length = length


@dataclass(frozen=True, eq=False)
class LayerCache:
    """One layer's part of a `KeyValueCache`."""

    cache: KeyValueCache
    index: int

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new positions and return all, new ones included. `KeyValueCache.advance` counts them later.

        Shape: key, value [B, G, n, d] -> [B, G, T + n, d] each (views of the buffer).
        """
        start, stop = self.cache.length, self.cache.length + key.shape[2]
        # Written to the buffer itself: views that were taken before may not be, where gradients are recorded.
        buffer = self.cache.buffer
        buffer[self.index, 0, :, :, start:stop] = key
        buffer[self.index, 1, :, :, start:stop] = value
        return buffer[self.index, 0, :, :, :stop], buffer[self.index, 1, :, :, :stop]
