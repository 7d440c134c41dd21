"""A `transformers` MarianMTModel of the same shape as a sublayer model, with the same weights, so with equal outputs.

Marian computes what the paper's model computes when: post-norm LayerNorm, sinusoidal positions with all sines first,
embeddings scaled and all tied, no output bias. What differs is where weights are kept: sublayer has the projections
that read the same input in one matrix, Marian has one for each.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import MarianConfig, MarianMTModel

from sublayer import config
from sublayer.models import EncoderDecoder

ACTIVATIONS: Mapping[config.Activation, str] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "silu": "silu",
}
PAD, START, END = 0, 1, 2


def why_not_marian(c: config.EncoderDecoder) -> list[str]:
    """What stands between `c` and a Marian of the same function; empty where nothing does."""
    reasons = [] if c.tied == "all" else [f"tied = {c.tied!r}, not 'all'"]
    reasons += ["it has an output bias"] if c.output_bias else []
    reasons += [] if c.embedding.scale and c.embedding.norm is None else ["its embedding is unscaled or normalized"]
    for name, stack in (("encoder", c.encoder), ("decoder", c.decoder)):
        block = stack.block
        plain = config.Attention(heads=block.attention.heads, dropout=block.attention.dropout)
        wanted = {
            "position": stack.position == config.Sinusoidal(layout="halves"),
            "norm_placement": block.norm_placement == "post",
            "norm": block.norm == config.LayerNorm(eps=1e-5),
            "attention": block.attention == plain and block.cross == plain,
            "feed_forward": isinstance(block.feed_forward, config.PositionWise) and block.feed_forward.bias,
        }
        reasons += [f"{name}.{part} is not Marian's" for part, same in wanted.items() if not same]
    return reasons


def marian_config(c: config.EncoderDecoder) -> MarianConfig:
    """The MarianConfig of the same shape and function."""
    if reasons := why_not_marian(c):
        raise ValueError(f"not a Marian: {'; '.join(reasons)}")
    encoder, decoder = c.encoder.block, c.decoder.block
    assert isinstance(encoder.feed_forward, config.PositionWise)
    return MarianConfig(
        vocab_size=c.vocab_size,
        d_model=c.dim,
        max_position_embeddings=c.max_length,
        encoder_layers=c.encoder.layers,
        encoder_attention_heads=encoder.attention.heads,
        encoder_ffn_dim=encoder.feed_forward.hidden,
        decoder_layers=c.decoder.layers,
        decoder_attention_heads=decoder.attention.heads,
        decoder_ffn_dim=decoder.feed_forward.hidden,
        activation_function=ACTIVATIONS[encoder.feed_forward.activation],
        dropout=encoder.dropout,
        attention_dropout=encoder.attention.dropout,
        activation_dropout=encoder.feed_forward.dropout,
        scale_embedding=True,
        share_encoder_decoder_embeddings=True,
        tie_word_embeddings=True,
        # Hugging Face's default of 0.02 makes for slow starts at these widths; weights are copied in any case.
        init_std=c.dim**-0.5,
        pad_token_id=PAD,
        bos_token_id=START,
        decoder_start_token_id=START,
        eos_token_id=END,
        # Marian's default puts an end marker at the length limit; neither search that is compared here asks for it.
        forced_eos_token_id=None,
    )


def to_marian(model: EncoderDecoder) -> MarianMTModel:
    """A Marian with copies of `model`'s weights, on its device, in its mode."""
    marian = MarianMTModel(marian_config(model.config))
    target = marian.state_dict()
    own = model.state_dict()
    with torch.no_grad():
        for ours, theirs in marian_names(model.config).items():
            parts = own[ours].split([target[name].shape[0] for name in theirs])
            for name, part in zip(theirs, parts, strict=True):
                target[name].copy_(part)
    return marian.to(model.device).train(model.training)


def from_marian(marian: MarianMTModel, model: EncoderDecoder) -> None:
    """Copy Marian's weights into `model`, which must have its shape."""
    theirs = marian.state_dict()
    own = model.state_dict()
    with torch.no_grad():
        for ours, names in marian_names(model.config).items():
            own[ours].copy_(_joined([theirs[name] for name in names]))


def marian_names(c: config.EncoderDecoder) -> dict[str, tuple[str, ...]]:
    """Where each of sublayer's tensors is in Marian: more than one name where rows of ours are split there."""
    names = {"decoder.embedding.tokens.weight": ("model.shared.weight",)}
    for stack, layers in (("encoder", c.encoder.layers), ("decoder", c.decoder.layers)):
        for index in range(layers):
            place = f"{stack}.layers.{index}"
            pairs = _layer_names() | (_cross_names() if stack == "decoder" else {})
            for ours, theirs in pairs.items():
                for kind in ("weight", "bias"):
                    names[f"{place}.{ours}.{kind}"] = tuple(f"model.{place}.{name}.{kind}" for name in theirs)
    return names


def _layer_names() -> dict[str, tuple[str, ...]]:
    return {
        "self_attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "self_attention.output": ("self_attn.out_proj",),
        "self_attention_sublayer.outer": ("self_attn_layer_norm",),
        "feed_forward.up": ("fc1",),
        "feed_forward.down": ("fc2",),
        "feed_forward_sublayer.outer": ("final_layer_norm",),
    }


def _cross_names() -> dict[str, tuple[str, ...]]:
    return {
        "cross_attention.query": ("encoder_attn.q_proj",),
        "cross_attention.key_value": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
        "cross_attention.output": ("encoder_attn.out_proj",),
        "cross_attention_sublayer.outer": ("encoder_attn_layer_norm",),
    }


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
