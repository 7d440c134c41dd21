"""Recurrent layers: what a token becomes depends on what the one before it has become, and so on to the first.

    rnn    h' = tanh(W x + U h + b)                                                              (Elman 1990)
    gru    r, z = sigmoid(...), n = tanh(W x + b + r * (U h + c)), h' = (1 - z) n + z h          (Cho et al. 2014)
    lstm   i, f, o = sigmoid(...), g = tanh(...), c' = f c + i g, h' = o tanh(c')
                                                             (Hochreiter and Schmidhuber 1997; Gers et al. 2000)

They are torch's own kernels (`torch.nn.RNN`, `GRU`, `LSTM`), which know how to be fast; here is what they are given.

Shapes: B batch, S positions, D width, L layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sublayer import config
from sublayer.nn.initial import glorot_std, orthogonal
from sublayer.nn.part import Part
from sublayer.nn.tap import Tap

States: TypeAlias = tuple[Tensor, ...]
"""What the layers remember, [L, B, D] each: h, and of an LSTM c too."""

FEW = 3
"""Different lengths in a batch up to which a CPU reads the rows of each by themselves: oneDNN's LSTM, twice as fast as
torch's own, knows no packed rows, and a batch of rows of nearly the same length has one or two lengths."""

KERNELS: Mapping[config.Cell, type[nn.LSTM] | type[nn.GRU] | type[nn.RNN]] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn": nn.RNN,
}


class Recurrence(Part):
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

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The gates of a layer stand one under the other, each of them H wide."""
        width = self.dim // self.directions
        for name, parameter in self.kernel.named_parameters():
            if parameter.is_meta:
                continue
            if name.startswith("weight_ih"):
                nn.init.normal_(parameter, std=glorot_std(parameter.shape[1], width))
            elif name.startswith("weight_hh"):
                for start in range(0, len(parameter), width):
                    parameter[start : start + width] = orthogonal(parameter[:width])
            else:
                nn.init.zeros_(parameter)
                # Two biases are added; one of them says it. The order of an LSTM's gates is torch's: i, f, g, o.
                if self.cell == "lstm" and name.startswith("bias_ih"):
                    parameter[width : 2 * width] = 1.0

    def forward(self, x: Tensor, states: States | None = None, lengths: Tensor | None = None) -> tuple[Tensor, States]:
        """Read on, from `states` or from nothing; from both ends only from nothing.

        Args:
            lengths: real positions of each row (padding on the right), 0 or more; None where all are. With lengths the
                states are those after each row's last real position, the way back begins there, and what is given at
                the padding is zero.

        Under autocast on a CPU that has no recurrence in autocast's type, everything here is float32.

        Shape: x [B, S, D], states [L, B, D], lengths [B] int64 -> [B, S, D], states [L, B, D].
        """
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and not _can_autocast():
            with torch.autocast("cpu", enabled=False):
                before = None if states is None else tuple(part.float() for part in states)
                y, after = self._read(x.float(), before, lengths)
        else:
            y, after = self._read(x, states, lengths)
        return self.stream(self.dropout(y)), after

    def _read(self, x: Tensor, states: States | None, lengths: Tensor | None) -> tuple[Tensor, States]:
        """All layers, by whichever way suits the lengths."""
        if lengths is None:
            y, after = self.kernel(x, self._told(states))
            return y, self._said(after)
        sizes = cast("list[int]", lengths.unique().tolist()) if x.device.type == "cpu" else []
        if 0 < len(sizes) <= FEW:
            return self._read_by_size(x, states, lengths, sizes)
        return self._read_packed(x, states, lengths)

    def _read_by_size(
        self, x: Tensor, states: States | None, lengths: Tensor, sizes: Sequence[int]
    ) -> tuple[Tensor, States]:
        """The rows of each length by themselves, which have no padding then."""
        order: list[Tensor] = []
        outputs: list[Tensor] = []
        reached: list[States] = []
        before = self.fresh(x.shape[0], x) if states is None else states
        for size in sizes:
            rows = (lengths == size).nonzero().squeeze(1)
            own = tuple(part[:, rows] for part in before)
            told = None if states is None else own
            y, after = self._read(x[rows, :size], told, None) if size else (x[rows, :0], own)
            order.append(rows)
            outputs.append(F.pad(y, (0, 0, 0, x.shape[1] - size)))
            reached.append(after)
        back = torch.cat(order).argsort()
        parts = zip(*reached, strict=True)
        return torch.cat(outputs)[back], tuple(torch.cat(part, dim=1)[:, back] for part in parts)

    def _read_packed(self, x: Tensor, states: States | None, lengths: Tensor) -> tuple[Tensor, States]:
        """Rows of all lengths at once, as torch packs them."""
        # The kernels know no empty row: it is read as though it had one position, and then forgotten.
        held = lengths.clamp(min=1).cpu()
        packed, after = self.kernel(
            pack_padded_sequence(x, held, batch_first=True, enforce_sorted=False), self._told(states)
        )
        y, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
        empty = lengths == 0
        before = self.fresh(x.shape[0], x) if states is None else states
        reached = zip(before, self._said(after), strict=True)
        return y * ~empty[:, None, None], tuple(torch.where(empty[:, None], old, new) for old, new in reached)

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


def _can_autocast() -> bool:
    """Return whether this CPU computes a recurrence in autocast's present type.

    oneDNN's LSTM in bfloat16 needs AVX-512 and raises without it. Where that is missing products in bfloat16 are plain
    loops as well, so what is found of the LSTM is used for all cells.
    """
    return _has_lstm(torch.get_autocast_dtype("cpu"), bool(torch.backends.mkldnn.enabled))


@cache
def _has_lstm(dtype: torch.dtype, one_dnn: bool) -> bool:
    """Find out by a small LSTM, forward and backward. `one_dnn` only tells one question from the other."""
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", dtype):
        kernel, x = nn.LSTM(8, 8, batch_first=True), torch.zeros(2, 3, 8, requires_grad=True)
        try:
            y, _ = kernel(x)
            y.float().sum().backward()
        except RuntimeError:
            return False
    return True
