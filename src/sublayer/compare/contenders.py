"""Who is compared: a Transformer, and recurrent networks that are as wide as gives them as many parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from sublayer import config
from sublayer.config.cost import total_parameters

M = TypeVar("M", bound=config.Model)

HEADS = 4
"""Of every Transformer."""
TITLES: Mapping[str, str] = {
    "transformer": "Transformer",
    "transformer-1": "Transformer, one layer",
    "lstm": "LSTM",
    "gru": "GRU",
    "rnn": "plain RNN",
    "lstm-attention": "LSTM with attention",
    "lstm-plain": "LSTM without attention",
}
"""What the contenders are called in a report."""


def matched(reference: config.Model, make: Callable[[int], M], *, even: bool = False) -> M:
    """Of the models that `make` gives for a width, the one with the number of parameters nearest to the reference's.

    Args:
        even: only even widths.
    """
    wanted, step = total_parameters(reference), 2 if even else 1
    low = high = step
    while total_parameters(make(high)) < wanted:
        low, high = high, high * 2
    while high - low > step:
        middle = (low + high) // (2 * step) * step
        if total_parameters(make(middle)) < wanted:
            low = middle
        else:
            high = middle
    return min(make(low), make(high), key=lambda tree: abs(total_parameters(tree) - wanted))


def transformer_lm(
    dim: int,
    layers: int,
    vocab_size: int,
    max_length: int,
    *,
    hidden: int | None = None,
    position: config.Position | None = None,
) -> config.DecoderOnly:
    """A decoder as it is built today: pre-norm; unless said otherwise, rotary positions and a feed-forward of 4 D."""
    block = config.Block(
        attention=config.Attention(heads=HEADS),
        feed_forward=config.PositionWise(hidden=4 * dim if hidden is None else hidden, activation="gelu"),
        norm_placement="pre",
    )
    return config.DecoderOnly(
        dim=dim,
        vocab_size=vocab_size,
        max_length=max_length,
        decoder=config.Stack(layers=layers, block=block, position=config.Rotary() if position is None else position),
    )


def recurrent_lm(cell: config.Cell, like: config.DecoderOnly, layers: int = 2) -> config.RecurrentDecoderOnly:
    """A recurrent language model with as many parameters."""
    return matched(
        like,
        lambda dim: config.RecurrentDecoderOnly(
            cell=cell,
            dim=dim,
            vocab_size=like.vocab_size,
            max_length=like.max_length,
            decoder=config.Recurrence(layers=layers),
        ),
    )


def recurrent_pair(
    cell: config.Cell, like: config.EncoderDecoder, attention: config.RecurrentAttention, layers: int = 2
) -> config.RecurrentEncoderDecoder:
    """A recurrent encoder-decoder with as many parameters, its encoder reading both ways."""
    return matched(
        like,
        lambda dim: config.RecurrentEncoderDecoder(
            cell=cell,
            dim=dim,
            vocab_size=like.vocab_size,
            max_length=like.max_length,
            encoder=config.RecurrentEncoder(layers=layers),
            decoder=config.RecurrentDecoder(layers=layers, attention=attention),
        ),
        even=True,
    )


def chain(model: config.Model, length: int) -> int:
    """Matrix products on the longest chain of those that wait for one another, in a forward pass over `length` tokens.

    In a Transformer's layer: the projections in, the scores, the mixture, the projection out, and two of the
    feed-forward; whatever the length. In a recurrent layer a token waits for the one before it and for the layer below:
    length + layers - 1. And the projection to the vocabulary. (Table 1 of the paper gives the orders, O(1) and O(n).)
    """
    if isinstance(model, config.RecurrentDecoderOnly | config.RecurrentEncoderDecoder):
        return length + model.decoder.layers
    stack = model.encoder if isinstance(model, config.EncoderOnly) else model.decoder
    return 6 * stack.layers + 1


def path(model: config.Model, distance: int) -> int:
    """Steps of the computation from a token to one `distance` tokens later, at the least ("maximum path length" in the
    paper's table 1): one attention, or every state in between."""
    return distance if isinstance(model, config.RecurrentDecoderOnly | config.RecurrentEncoderDecoder) else 1
