"""The parts of a recurrent network: what reads a text token by token, and how a decoder looks back at a source.

The whole networks are `RecurrentEncoderDecoder` and `RecurrentDecoderOnly` in `sublayer.config.model`, beside the
Transformers that they stand in for.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sublayer.config.part import Layers, Part, Probability, Size

Cell = Literal["lstm", "gru", "rnn"]
"""Long short-term memory (Hochreiter and Schmidhuber 1997), the gated recurrent unit (Cho et al. 2014), and the plain
network h' = tanh(W x + U h + b) (Elman 1990)."""

CELLS: tuple[Cell, ...] = ("lstm", "gru", "rnn")

# --- how a decoder looks at the source ---------------------------------------------------------------------------


class NoAttention(Part):
    """The decoder knows of the source what the encoder's last state holds (Sutskever et al. 2014)."""

    type: Literal["none"] = "none"


class Multiplicative(Part):
    """score(h, s) = h W s, "general" in Luong et al. 2015, section 3.1."""

    type: Literal["multiplicative"] = "multiplicative"


class Additive(Part):
    """score(h, s) = v tanh(W h + U s) (Bahdanau et al. 2015, appendix A.1.2; "concat" in Luong et al. 2015).

    hidden: length of v; unset means dim.
    """

    type: Literal["additive"] = "additive"
    hidden: Size | None = None


RecurrentAttention = Annotated[NoAttention | Multiplicative | Additive, Field(discriminator="type")]

# --- the layers --------------------------------------------------------------------------------------------------


class Recurrence(Part):
    """Layers of which each reads, from left to right, what the one below has made.

    dropout: on what a layer gives to the next, and on what the last one gives.
    """

    layers: Layers = 2
    dropout: Probability = 0.0


class RecurrentEncoder(Part):
    """What reads a source.

    dropout: on what a layer gives to the next, and on what the last one gives. bidirectional: each layer reads from
    both ends, with half of the width in each direction (Schuster and Paliwal 1997).
    """

    layers: Layers = 2
    bidirectional: bool = True
    dropout: Probability = 0.0


class RecurrentDecoder(Part):
    """What writes a target, from the encoder's last state on.

    dropout: on what a layer gives to the next, and on what the last one gives. attention: how it looks at the source.
    """

    layers: Layers = 2
    attention: RecurrentAttention = Multiplicative()
    dropout: Probability = 0.0
