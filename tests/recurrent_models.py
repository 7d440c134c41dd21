"""Recurrent models to try things on: every cell, with every kind of attention, both ways and one way; large weights."""

from __future__ import annotations

import torch

from sublayer import config
from sublayer.models import RecurrentDecoderOnly, RecurrentEncoderDecoder, build_model

VOCAB = 23
ATTENTIONS = (config.NoAttention(), config.Multiplicative(), config.Additive(hidden=6))

PAIRS = tuple(
    config.RecurrentEncoderDecoder(
        cell=cell,
        dim=10,
        vocab_size=VOCAB,
        max_length=40,
        tied=tied,
        output_bias=tied == "none",
        embedding=config.Embedding(norm=norm),
        encoder=config.RecurrentEncoder(layers=layers, bidirectional=both),
        decoder=config.RecurrentDecoder(layers=layers, attention=attention),
    )
    for cell, attention, both, layers, tied, norm in (
        ("lstm", config.NoAttention(), True, 2, "all", None),
        ("lstm", config.Multiplicative(), True, 2, "target", config.RMSNorm()),
        ("lstm", config.Additive(hidden=6), False, 1, "none", None),
        ("gru", config.Multiplicative(), False, 2, "embeddings", None),
        ("gru", config.Additive(), True, 1, "all", None),
        ("rnn", config.NoAttention(), True, 3, "none", config.LayerNorm()),
        ("rnn", config.Multiplicative(), True, 1, "all", None),
    )
)
TEXTS = tuple(
    config.RecurrentDecoderOnly(
        cell=cell,
        dim=10,
        vocab_size=VOCAB,
        max_length=40,
        tied=tied,
        output_bias=not tied,
        decoder=config.Recurrence(layers=layers),
    )
    for cell, layers, tied in (("lstm", 2, True), ("gru", 1, False), ("rnn", 3, True))
)


def build(
    c: config.RecurrentEncoderDecoder | config.RecurrentDecoderOnly, seed: int = 1
) -> RecurrentEncoderDecoder | RecurrentDecoderOnly:
    """In float64, with random weights and biases so large that nothing hides in the rounding."""
    torch.manual_seed(seed)
    model = build_model(c).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64) * 0.7)
    assert isinstance(model, RecurrentEncoderDecoder | RecurrentDecoderOnly)
    return model


def name(c: config.RecurrentEncoderDecoder | config.RecurrentDecoderOnly) -> str:
    if isinstance(c, config.RecurrentDecoderOnly):
        return f"{c.cell}-{c.decoder.layers}"
    return f"{c.cell}-{c.decoder.attention.type}-{c.encoder.layers}-{'both' if c.encoder.bidirectional else 'one'}"
