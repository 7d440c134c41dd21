"""What every kind of position answers, so that a stack never asks which kind it has.

Order can enter a Transformer in three places: added to the embeddings, as a rotation of queries and keys, or as a
bias on the attention scores. A `Position` may act in any of them and does nothing in the others.

Dimensions: B batch, S positions (of the queries), T positions of the keys, H heads, D width of the residual stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from sublayer import fast
from sublayer.nn.part import Part

if TYPE_CHECKING:
    # A kind of position itself, whose file begins with this one.
    from sublayer.nn.positions.rotation import Rotation


class Position(Part):
    """The interface; as it stands it does nothing in all three places.

    `positions` is int64 everywhere, [S] where all rows of a batch agree and [B, S] where they do not (padding on the
    left, several documents packed in a row), and counts from 0. A table reaches up to the `max_length` with which it
    was made; the model checks lengths before the first part runs, for on a GPU an index past the end is fatal.
    """

    def add(self, x: Tensor, positions: Tensor) -> Tensor:
        """`x` with the positions added; called once, on the embeddings.

        Shape:
            x: [B, S, D], floating; positions: [S] or [B, S]; the result: [B, S, D], of the type of `x`.
        """
        return x

    def rotation(self, positions: Tensor, dtype: torch.dtype) -> Rotation | None:
        """How queries and keys at `positions` are turned; called once per forward pass for all layers of a stack.

        Args:
            positions: [S] or [B, S].
            dtype: in which sines and cosines are given; the rotation is computed in the wider of it and the input's.
        """
        return None

    def bias(self, query_positions: Tensor, key_positions: Tensor, dtype: torch.dtype) -> Tensor | None:
        """What is added to the attention scores; called once per forward pass for all layers of a stack.

        Shape:
            query_positions: [S] or [B, S]; key_positions: [T] or [B, T];
            the result: [H, S, T], or [B, H, S, T] where either has a batch; of type `dtype`.
        """
        return None

    def reset_parameters(self) -> None:
        """Fill what is learned of the positions."""
        if next(self.parameters(recurse=False), None) is not None:
            super().reset_parameters()

    def stream_axes(self) -> Mapping[str, int]:
        if next(self.parameters(recurse=False), None) is not None:
            return super().stream_axes()
        return {}

    def lower(self, length: int) -> fast.Positions:
        """What it does in the first `length` places, as tables; not called through the program, for it adds nothing.

        Raises:
            NotLowered: it does not say.
        """
        raise fast.NotLowered(f"{type(self).__name__} does not say how it is lowered")

    def reset_buffers(self, device: torch.device | str | None = None) -> None:
        """Compute the fixed tables again, on `device` (unset: where they are).

        Tables are not in a checkpoint, so a model made on the meta device needs this once its weights have been
        assigned. `Module.to_empty` does it by itself.
        """


class NoPosition(Position):
    """No positions at all: order is seen through the causal mask alone."""

    def lower(self, length: int) -> fast.Positions:
        return fast.Positions(length)


class Tabulated(Position):
    """A position that is read from a fixed table.

    The table is computed in float64 and kept, outside the state dict, in float32, or in float64 where the model is
    in float64. A model turned into bfloat16 keeps it in float32: rounded to 8 bits, neighbouring positions would
    coincide. Every subclass sets its own attributes before it calls `_make_buffer`.
    """

    table: Tensor

    def make_table(self) -> Tensor:
        """The table, on the CPU, in float64 or an integer type."""
        raise NotImplementedError

    def _make_buffer(self) -> None:
        self.register_buffer("table", torch.empty(0), persistent=False)
        self.reset_buffers()

    def reset_buffers(self, device: torch.device | str | None = None) -> None:
        if device is None:
            # A table stranded on the meta device goes to where new tensors go.
            device = torch.empty(0).device if self.table.is_meta else self.table.device
        if torch.device(device).type == "meta":
            return  # it would be computed for nothing, and that of a long context has millions of numbers
        table = self.make_table()
        if table.is_floating_point():
            table = table.to(torch.float64 if self.table.dtype == torch.float64 else torch.float32)
        self.table = table.to(device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Casting rounds, and `to_empty` leaves rubbish: whatever has changed the table, it is computed anew.
        before = self.table
        super()._apply(fn, recurse)  # pyright: ignore[reportUnknownMemberType]
        if self.table is not before and not self.table.is_meta:
            self.reset_buffers()
        return self
