"""The parts of a recurrent network: what reads a text token by token, and how a decoder looks back at a source.

The whole networks are in `recurrent_shapes`, beside the Transformers that they stand in for. D width, g gates of a
cell, A width of attention's scores, S source tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from sublayer.config.part import Layers, Part, Probability, Size

__all__ = [
    "CELLS", "Additive", "Cell", "Multiplicative", "NoAttention", "Recurrence", "RecurrentAttention",
    "RecurrentDecoder", "RecurrentEncoder",
]  # fmt: skip

Cell = Literal["lstm", "gru", "rnn"]
"""Long short-term memory (Hochreiter and Schmidhuber 1997), the gated recurrent unit (Cho et al. 2014), and the plain
network h' = tanh(W x + U h + b) (Elman 1990)."""

CELLS: tuple[Cell, ...] = ("lstm", "gru", "rnn")

GATES: Mapping[Cell, int] = {"lstm": 4, "gru": 3, "rnn": 1}
STATES: Mapping[Cell, int] = {"lstm": 2, "gru": 1, "rnn": 1}
"""Vectors of width D that a layer remembers."""

KEPT: Mapping[Cell, tuple[float, float]] = {"lstm": (17.3, 24.8), "gru": (8.0, 8.5), "rnn": (2.05, 2.55)}
"""Numbers that a layer keeps for the backward pass, in widths D a token: of one direction, and of both. As measured of
torch 2.13's kernels for a CPU: gates, states and their activations, and of an LSTM the kernel's own workspace."""

# --- how a decoder looks at the source ---------------------------------------------------------------------------


class NoAttention(Part):
    """The decoder knows of the source what the encoder's last state holds (Sutskever et al. 2014)."""

    type: Literal["none"] = "none"

    def parameters(self, dim: int) -> dict[str, int]:
        return {}

    def source_flops(self, dim: int) -> int:
        return 0

    def flops(self, dim: int, source_length: int) -> int:
        return 0

    def looked_at(self, dim: int) -> int:
        return 0

    def kept(self, dim: int, source: int, target: int) -> int:
        return 0


class _Scored(Part):
    def score_width(self, dim: int) -> int:
        raise NotImplementedError(type(self).__name__)

    def query_parameters(self, dim: int) -> int:
        """Numbers in what the query alone goes through."""
        return 0

    def parameters(self, dim: int) -> dict[str, int]:
        """The map of keys, what the query goes through, and the map of what was found and the state, 2 D to D."""
        return {"cross_attention": dim * self.score_width(dim) + self.query_parameters(dim) + 2 * dim * dim}

    def source_flops(self, dim: int) -> int:
        """Operations a source token, once: its key."""
        return 2 * dim * self.score_width(dim)

    def query_flops(self, dim: int) -> int:
        return 0

    def flops(self, dim: int, source_length: int) -> int:
        """Operations a target token: for each of the source's a product of width A and one of width D."""
        return self.query_flops(dim) + 4 * dim * dim + 2 * (self.score_width(dim) + dim) * source_length

    def looked_at(self, dim: int) -> int:
        """Numbers a source token that attention looks at: its key and its value."""
        return self.score_width(dim) + dim

    def kept(self, dim: int, source: int, target: int) -> int:
        """Numbers kept for the backward pass. Not counted: what additive scores keep, S * A numbers a target token."""
        return (source + 5 * target) * dim


class Multiplicative(_Scored):
    """score(h, s) = h W s, "general" in Luong et al. 2015, section 3.1."""

    type: Literal["multiplicative"] = "multiplicative"

    def score_width(self, dim: int) -> int:
        return dim


class Additive(_Scored):
    """score(h, s) = v tanh(W h + U s) (Bahdanau et al. 2015, appendix A.1.2; "concat" in Luong et al. 2015).

    hidden: length of v; unset means dim.
    """

    type: Literal["additive"] = "additive"
    hidden: Size | None = None

    def score_width(self, dim: int) -> int:
        return dim if self.hidden is None else self.hidden

    def query_parameters(self, dim: int) -> int:
        return (dim + 1) * self.score_width(dim)

    def query_flops(self, dim: int) -> int:
        return 2 * dim * self.score_width(dim)


RecurrentAttention = Annotated[NoAttention | Multiplicative | Additive, Field(discriminator="type")]

# --- the layers --------------------------------------------------------------------------------------------------


class Recurrence(Part):
    """Layers of which each reads, from left to right, what the one below has made.

    dropout: on what a layer gives to the next, and on what the last one gives.
    """

    layers: Layers = 2
    dropout: Probability = 0.0

    @property
    def both(self) -> bool:
        """Whether each layer reads from both ends."""
        return False

    def matrices(self, cell: Cell, dim: int) -> int:
        """Numbers in the matrices: from the input, D wide, and from the state, as wide as a layer is in a direction."""
        width, directions = (dim // 2, 2) if self.both else (dim, 1)
        return self.layers * GATES[cell] * directions * width * (dim + width)

    def parameters(self, cell: Cell, dim: int) -> int:
        """With two biases a gate, as torch has them."""
        return self.matrices(cell, dim) + self.layers * 2 * GATES[cell] * dim

    def flops(self, cell: Cell, dim: int) -> int:
        """Operations a token."""
        return 2 * self.matrices(cell, dim)

    def kept(self, cell: Cell, dim: int) -> float:
        """Numbers kept a token for the backward pass."""
        return self.layers * (KEPT[cell][self.both] + (1 if self.dropout else 0)) * dim

    def state(self, cell: Cell, dim: int) -> int:
        """Numbers that a hypothesis remembers, however long it is."""
        return STATES[cell] * self.layers * dim


class RecurrentEncoder(Recurrence):
    """What reads a source.

    dropout: on what a layer gives to the next, and on what the last one gives. bidirectional: each layer reads from
    both ends, with half of the width in each direction (Schuster and Paliwal 1997).
    """

    bidirectional: bool = True

    @property
    def both(self) -> bool:
        return self.bidirectional


class RecurrentDecoder(Recurrence):
    """What writes a target, from the encoder's last state on.

    dropout: on what a layer gives to the next, and on what the last one gives. attention: how it looks at the source.
    """

    attention: RecurrentAttention = Multiplicative()
