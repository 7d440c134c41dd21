"""Recurrent layers: what a token becomes depends on what the one before it has become, and so on to the first.

    rnn    h' = tanh(W x + U h + b)                                                              (Elman 1990)
    gru    r, z = sigmoid(...), n = tanh(W x + b + r * (U h + c)), h' = (1 - z) n + z h          (Cho et al. 2014)
    lstm   i, f, o = sigmoid(...), g = tanh(...), c' = f c + i g, h' = o tanh(c')
                                                             (Hochreiter and Schmidhuber 1997; Gers et al. 2000)

They are torch's own kernels (`torch.nn.RNN`, `GRU`, `LSTM`), which know how to be fast; here is what they are given.

Shapes: B batch, S positions, D width, L layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sublayer import config
from sublayer.nn.tap import Tap

States: TypeAlias = tuple[Tensor, ...]
"""What the layers remember, [L, B, D] each: h, and of an LSTM c too."""

KERNELS: Mapping[config.Cell, type[nn.LSTM] | type[nn.GRU] | type[nn.RNN]] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn": nn.RNN,
}


class Recurrence(nn.Module):
    """Layers of cells, one above the other, with dropout on what each of them gives.

    The tap `stream` sees what the last layer gives.

    Args:
        bidirectional: each layer reads from both ends, with half of the width in each direction.
    """

    def __init__(
        self, cell: config.Cell, dim: int, layers: int, dropout: float, *, bidirectional: bool = False
    ) -> None:
        super().__init__()
        self.cell: config.Cell = cell
        self.dim, self.layers, self.directions = dim, layers, 2 if bidirectional else 1
        self.kernel: Any = KERNELS[cell](
            dim,
            dim // self.directions,
            layers,
            batch_first=True,
            # Between layers; torch warns where there is no between.
            dropout=dropout if layers > 1 else 0.0,
            bidirectional=bidirectional,
        )
        self.dropout = nn.Dropout(dropout)
        self.stream = Tap()

    def forward(self, x: Tensor, states: States | None = None, lengths: Tensor | None = None) -> tuple[Tensor, States]:
        """Read on, from `states` or from nothing.

        Args:
            lengths: real positions of each row (padding on the right), 0 or more; None where all are. With lengths the
                states are those after each row's last real position, the way back begins there, and what is given at
                the padding is zero.

        Shape: x [B, S, D], states [L, B, D], lengths [B] int64 -> [B, S, D], states [L, B, D].
        """
        if lengths is None:
            y, after = self.kernel(x, self._told(states))
            return self.stream(self.dropout(y)), self._said(after)
        # The kernels know no empty row: it is read as though it had one position, and then forgotten.
        held = lengths.clamp(min=1).cpu()
        packed, after = self.kernel(
            pack_padded_sequence(x, held, batch_first=True, enforce_sorted=False), self._told(states)
        )
        y, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
        said, empty = self._said(after), lengths == 0
        before = self.fresh(x.shape[0], x) if states is None else states
        said = tuple(torch.where(empty[:, None], old, new) for old, new in zip(before, said, strict=True))
        return self.stream(self.dropout(y * ~empty[:, None, None])), said

    def fresh(self, rows: int, like: Tensor) -> States:
        """The states before anything was read: zeros. Shape: [L, rows, D]."""
        zeros = like.new_zeros(self.layers, rows, self.dim)
        return (zeros, zeros) if self.cell == "lstm" else (zeros,)

    def _told(self, states: States | None) -> States | Tensor | None:
        """States as the kernel takes them."""
        if states is None or self.cell == "lstm":
            return states
        return states[0]

    def _said(self, states: States | Tensor) -> States:
        """States as the kernel gives them, the directions of a layer side by side: [L * 2, B, D / 2] -> [L, B, D]."""
        several: States = (states,) if isinstance(states, Tensor) else states
        if self.directions == 1:
            return several
        return tuple(torch.cat((part[0::2], part[1::2]), dim=-1) for part in several)
