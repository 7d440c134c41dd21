"""Keys and values kept while decoding.

One buffer for all layers, allocated once: appending copies one position, `reorder` is one gather (beam search),
`truncate` is a number (speculation). Nothing grows by concatenation. Rows that are joined end at the same position.
Whoever can read through a table of rows (the engine) asks for one, and then `reorder` moves nothing but the table.

A cache of fixed shapes shows all of its capacity at every step, and says by a tensor where the next position goes: so a
step can be compiled or captured once (as in gpt-fast). Any other shows what it holds, of which there is less to read.

Shapes: L layers, B rows, G key-value heads, C capacity, T positions held, d width of a head.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from sublayer.errors import InputError


class KeyValueCache:
    """Keys and values of the positions seen so far, of every layer.

    rows: in which row of the buffer each position of a row stands, [B, C] int32; None where all stand in their own.
    buffer: [L, 2, B, G, C, d]; `length`: T, how many positions are held, the same in every row. spare: how many of the
    others no row needs. position: the same as
    a tensor, int64 [], in a cache of fixed shapes; None in any other.
    """

    def __init__(
        self,
        *,
        layers: int,
        rows: int,
        heads: int,
        capacity: int,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
        fixed: bool = False,
    ) -> None:
        shape = layers, 2, rows, heads, capacity, width
        # Empty, for whoever appends gets views that end at `length`: what lies past it is never read. With fixed
        # shapes it is masked, and so must be finite.
        self.buffer = (torch.zeros if fixed else torch.empty)(*shape, dtype=dtype, device=device)
        self.position = torch.zeros((), dtype=torch.int64, device=device) if fixed else None
        self.length = 0
        self.rows: Tensor | None = None
        self.spare = 0

    @property
    def capacity(self) -> int:
        return self.buffer.shape[4]

    @property
    def room(self) -> int:
        """Positions that rows may still need."""
        return max(0, self.capacity - self.length - self.spare)

    @property
    def bytes(self) -> int:
        return self.buffer.nbytes

    def layer(self, index: int) -> LayerCache:
        """The view that one attention appends to."""
        return LayerCache(self, index)

    def advance(self, count: int) -> None:
        """Count the positions that every layer has appended."""
        self._move_to(self.length + count)

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
        if self.rows is not None:
            if rows.shape[0] == self.buffer.shape[2]:
                self.rows = self.rows.index_select(0, rows)
                return
            self.settle()
        held = self.buffer[:, :, :, :, : self.length]
        if rows.shape[0] == self.buffer.shape[2]:
            # Of beams the best often goes on in its own row: only what changes is copied.
            (changed,) = (rows != torch.arange(rows.shape[0], device=rows.device)).nonzero(as_tuple=True)
            taken = rows[changed]
            # A layer at a time, which stays in a processor's cache between the two copies.
            for layer in held.unbind(0):
                layer.index_copy_(1, changed, layer.index_select(1, taken))
        else:
            other = self._like(rows.shape[0], self.capacity)
            other[:, :, :, :, : self.length] = held.index_select(2, rows)
            self.buffer = other

    def use_rows(self, count: int) -> Tensor:
        """Go on with a table of rows, in which the next `count` positions stand in their own, and return it."""
        own = torch.arange(self.buffer.shape[2], dtype=torch.int32, device=self.buffer.device).unsqueeze(1)
        if self.rows is None:
            self.rows = own.repeat(1, self.capacity)
        else:
            self.rows[:, self.length : self.length + count] = own
        return self.rows

    def settle(self) -> None:
        """Move what stands in other rows to its own, and go on without a table."""
        if self.rows is None:
            return
        heads = torch.arange(self.buffer.shape[3], device=self.buffer.device).unsqueeze(1)
        places = torch.arange(self.length, device=self.buffer.device)
        held = self.buffer[:, :, self.rows[:, None, : self.length].long(), heads, places]
        self.buffer[:, :, :, :, : self.length] = held
        self.rows = None

    def fork(self, length: int, capacity: int) -> KeyValueCache:
        """Another cache that holds the first `length` positions of this one, with so large a capacity."""
        self.settle()
        other = copy(self)
        other.buffer = self._like(self.buffer.shape[2], capacity)
        other.buffer[:, :, :, :, :length] = self.buffer[:, :, :, :, :length]
        other.position = None if self.position is None else torch.zeros_like(self.position)
        other._move_to(length)
        other.spare = 0
        return other

    def join(self, other: KeyValueCache) -> tuple[int, int]:
        """Take the rows of `other`, below one's own; the shorter are moved to the right, to end where the longer end.
        The capacity leaves all rows the room that they had, and half as much again, so that others can be `put` in
        place of some for a while.

        Returns:
            by how many positions one's own rows, and the other's, were moved.
        """
        self.settle()
        other.settle()
        length = max(self.length, other.length)
        room = max(self.room, other.room)
        own, self.spare = self.buffer.shape[2], (length + room) // 2
        buffer = self._like(own + other.buffer.shape[2], length + room + self.spare)
        # What stands before a row that was moved is masked, and so must be finite.
        buffer[:, :, :, :, :length] = 0
        buffer[:, :, :own, :, length - self.length : length] = self.buffer[:, :, :, :, : self.length]
        buffer[:, :, own:, :, length - other.length : length] = other.buffer[:, :, :, :, : other.length]
        moved = length - self.length, length - other.length
        self.buffer = buffer
        self._move_to(length)
        return moved

    def put(self, rows: Tensor, other: KeyValueCache) -> int:
        """Row rows[i] becomes what row i of `other` is, which holds no more positions and needs no more room.

        Returns:
            by how many positions it was moved to the right.
        """
        self.settle()
        other.settle()
        moved = self.length - other.length
        for own, new in zip(self.buffer.unbind(0), other.buffer.unbind(0), strict=True):
            own[:, rows, :, moved : self.length] = new[:, :, :, : other.length]
        self.spare = min(self.spare, self.capacity - self.length - other.room)
        return moved

    def drop(self, count: int) -> None:
        """Forget the first `count` positions of all rows, and move the others there."""
        self.settle()
        self.spare += count
        held = self.buffer[:, :, :, :, count : self.length].clone()
        self._move_to(self.length - count)
        self.buffer[:, :, :, :, : self.length] = held

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate a cache of {self.length} positions to {length}")
        self._move_to(length)

    def _move_to(self, length: int) -> None:
        self.length = length
        if self.position is not None:
            # In place: whoever has captured a step reads it there.
            self.position.fill_(length)

    def _like(self, rows: int, capacity: int) -> Tensor:
        layers, two, _, heads, _, width = self.buffer.shape
        make = self.buffer.new_empty if self.position is None else self.buffer.new_zeros
        return make(layers, two, rows, heads, capacity, width)


@dataclass(frozen=True, eq=False)
class LayerCache:
    """One layer's part of a `KeyValueCache`."""

    cache: KeyValueCache
    index: int

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new positions and return all, new ones included. `KeyValueCache.advance` counts them later.

        Shape: key, value [B, G, n, d] -> [B, G, T + n, d] each (views of the buffer); [B, G, C, d] with fixed shapes.
        """
        if self.cache.position is not None:
            return self._append_at(self.cache.position, key, value)
        self.cache.settle()
        start, stop = self.cache.length, self.cache.length + key.shape[2]
        # Written to the buffer itself: views that were taken before may not be, where gradients are recorded.
        buffer = self.cache.buffer
        buffer[self.index, 0, :, :, start:stop] = key
        buffer[self.index, 1, :, :, start:stop] = value
        return buffer[self.index, 0, :, :, :stop], buffer[self.index, 1, :, :, :stop]

    def _append_at(self, position: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        where = position + torch.arange(key.shape[2], device=key.device)
        keys, values = self.cache.buffer[self.index].unbind(0)
        return keys.index_copy_(2, where, key), values.index_copy_(2, where, value)
