"""What the layers of a recurrent network cost, counted from the tree: their part of `sublayer.config.cost`.

Symbols: D width, L layers, g gates of a cell (LSTM 4, GRU 3, plain 1), A width of additive scores, S source tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

from sublayer.config.model import Recurrent, RecurrentDecoderOnly, RecurrentEncoderDecoder
from sublayer.config.recurrent import Additive, Cell, NoAttention, RecurrentAttention

GATES: Mapping[Cell, int] = {"lstm": 4, "gru": 3, "rnn": 1}

_KEPT: Mapping[Cell, tuple[float, float]] = {"lstm": (17.3, 24.8), "gru": (8.0, 8.5), "rnn": (2.05, 2.55)}
"""Numbers that a layer keeps for the backward pass, in widths D a token: of one direction, and of both. As measured of
torch 2.13's kernels for a CPU: gates, states and their activations, and of an LSTM the kernel's own workspace."""


def parameters(model: Recurrent) -> dict[str, int]:
    """Parameters of the layers and of the attention between them, by part."""
    dim = model.dim
    own = _layers(model.cell, dim, model.decoder.layers, both=False)
    if isinstance(model, RecurrentDecoderOnly):
        return {"decoder.recurrence": own}
    count = {
        "encoder.recurrence": _layers(model.cell, dim, model.encoder.layers, both=model.encoder.bidirectional),
        "decoder.recurrence": own,
    }
    attention = model.decoder.attention
    if isinstance(attention, NoAttention):
        return count
    return {**count, "decoder.cross_attention": _key(attention, dim) + _query(attention, dim) + 2 * dim * dim}


def matrices(model: Recurrent) -> int:
    """Numbers in the matrices of the layers: those that Muon takes."""
    count = _matrices(model.cell, model.dim, both=False) * model.decoder.layers
    if isinstance(model, RecurrentEncoderDecoder):
        count += _matrices(model.cell, model.dim, both=model.encoder.bidirectional) * model.encoder.layers
    return count


def encoding(model: RecurrentEncoderDecoder) -> int:
    """Operations a source token, with what attention makes of it once."""
    products = _matrices(model.cell, model.dim, both=model.encoder.bidirectional) * model.encoder.layers
    attention = model.decoder.attention
    return 2 * (products + (0 if isinstance(attention, NoAttention) else _key(attention, model.dim)))


def decoding(model: Recurrent, source_length: int = 0) -> int:
    """Operations a token that is read or made by the decoder, with a look at `source_length` tokens."""
    dim = model.dim
    products = 2 * _matrices(model.cell, dim, both=False) * model.decoder.layers
    if isinstance(model, RecurrentDecoderOnly) or isinstance(model.decoder.attention, NoAttention):
        return products
    attention = model.decoder.attention
    width = _width(attention, dim)
    query = dim * width if isinstance(attention, Additive) else 0
    # The scores and the mixing: a product of width A and one of width D for each source token.
    return products + 2 * (query + 2 * dim * dim) + 2 * (width + dim) * source_length


def kept(model: Recurrent, source: int, target: int) -> int:
    """Numbers kept for the backward pass by so many source and target tokens.

    Not counted: what additive scores keep, S * A numbers a target token.
    """
    one, both = _KEPT[model.cell]
    layers, dropout = model.decoder.layers, model.decoder.dropout
    numbers = target * layers * (one + (1 if dropout else 0))
    if isinstance(model, RecurrentEncoderDecoder):
        each = both if model.encoder.bidirectional else one
        numbers += source * model.encoder.layers * (each + (1 if model.encoder.dropout else 0))
        if not isinstance(model.decoder.attention, NoAttention):
            numbers += source + 5 * target
    return int(numbers * model.dim)


def state(model: Recurrent) -> int:
    """Numbers that a hypothesis remembers, however long it is."""
    return (2 if model.cell == "lstm" else 1) * model.decoder.layers * model.dim


def looked_at(model: RecurrentEncoderDecoder) -> int:
    """Numbers a source token that attention looks at: its key and its value."""
    attention = model.decoder.attention
    return 0 if isinstance(attention, NoAttention) else _width(attention, model.dim) + model.dim


def _layers(cell: Cell, dim: int, layers: int, *, both: bool) -> int:
    """All numbers of all layers: two biases a gate, as torch has them."""
    return layers * (_matrices(cell, dim, both=both) + 2 * GATES[cell] * dim)


def _matrices(cell: Cell, dim: int, *, both: bool) -> int:
    """Of one layer: from the input, D wide, and from the state, as wide as the layer is in a direction."""
    width = dim // 2 if both else dim
    return GATES[cell] * (2 if both else 1) * width * (dim + width)


def _width(attention: RecurrentAttention, dim: int) -> int:
    return attention.hidden if isinstance(attention, Additive) and attention.hidden is not None else dim


def _key(attention: RecurrentAttention, dim: int) -> int:
    return dim * _width(attention, dim)


def _query(attention: RecurrentAttention, dim: int) -> int:
    """The map of the decoder's state and the vector v; multiplicative scores need neither."""
    return (dim + 1) * _width(attention, dim) if isinstance(attention, Additive) else 0
