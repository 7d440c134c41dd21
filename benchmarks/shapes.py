"""The shapes that the benchmarks compare: a preset's sizes in the one architecture that all contenders can be."""

from __future__ import annotations

from sublayer import config


def common_shape(preset: str, *, vocab_size: int, dropout: float = 0.0) -> config.EncoderDecoder:
    """The preset's sizes as the model of the paper, which is also what Marian and `torch.nn.Transformer` build.

    Post-norm, ReLU (or the preset's activation), LayerNorm with eps 1e-5, sinusoidal positions with all sines first
    (Marian's layout), one matrix for both embeddings and the output projection, no output bias. `dropout` acts in
    every place where `torch.nn.Transformer` has one: embeddings, sub-layers, attention weights, hidden activations.
    """
    c = config.preset(preset)
    return c.model_copy(
        update={
            "vocab_size": vocab_size,
            "embedding": config.Embedding(scale=True, dropout=dropout),
            "tied": "all",
            "output_bias": False,
            "encoder": _common_stack(c.encoder, dropout),
            "decoder": _common_stack(c.decoder, dropout),
        }
    )


def _common_stack(stack: config.Stack, dropout: float) -> config.Stack:
    feed_forward = stack.block.feed_forward
    assert isinstance(feed_forward, config.PositionWise), "a gated feed-forward has no counterpart in the others"
    return config.Stack(
        layers=stack.layers,
        position=config.Sinusoidal(layout="halves"),
        block=config.Block(
            attention=config.Attention(heads=stack.block.attention.heads, dropout=dropout),
            feed_forward=config.PositionWise(
                hidden=feed_forward.hidden, activation=feed_forward.activation, dropout=dropout
            ),
            norm=config.LayerNorm(eps=1e-5),
            norm_placement="post",
            dropout=dropout,
        ),
    )
