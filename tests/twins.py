"""The same model in other libraries, with copies of the weights: the oracles of the whole model and of its search."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import MarianConfig, MarianMTModel

from sublayer import config
from sublayer.models import EncoderDecoder
from sublayer.nn.block import Block


def tree(
    *,
    dim: int = 16,
    heads: int = 4,
    hidden: int = 24,
    layers: int = 2,
    vocab_size: int = 23,
    norm_placement: str = "post",
    layout: str = "halves",
    max_length: int = 32,
) -> config.EncoderDecoder:
    """The paper's model, small."""
    stack = config.Stack(
        layers=layers,
        block=config.Block(
            attention=config.Attention(heads=heads),
            feed_forward=config.PositionWise(hidden=hidden),
            norm_placement=norm_placement,
        ),
        position=config.Sinusoidal(layout=layout),
    )
    return config.EncoderDecoder(dim=dim, vocab_size=vocab_size, max_length=max_length, encoder=stack, decoder=stack)


def language_tree(max_length: int = 32) -> config.DecoderOnly:
    """A language model with rotary positions, small: its rows are wide enough for every weight format."""
    stack = config.Stack(
        layers=2,
        block=config.Block(
            attention=config.Attention(heads=4, kv_heads=2),
            feed_forward=config.Gated(hidden=96),
            norm=config.RMSNorm(),
            norm_placement="pre",
        ),
        position=config.Rotary(),
    )
    return config.DecoderOnly(dim=64, vocab_size=40, max_length=max_length, decoder=stack)


def copy(theirs: nn.Module, ours: nn.Module) -> None:
    theirs.load_state_dict(ours.state_dict())


def marian(model: EncoderDecoder, *, start: int, end: int, pad: int) -> MarianMTModel:
    """`transformers`' Marian: post-norm, ReLU, sinusoids in halves, all embeddings tied."""
    c = model.config
    encoder, decoder = c.encoder.block, c.decoder.block
    theirs = MarianMTModel(
        MarianConfig(
            vocab_size=c.vocab_size,
            d_model=c.dim,
            max_position_embeddings=c.max_length,
            encoder_layers=c.encoder.layers,
            encoder_attention_heads=encoder.attention.heads,
            encoder_ffn_dim=encoder.feed_forward.hidden,
            decoder_layers=c.decoder.layers,
            decoder_attention_heads=decoder.attention.heads,
            decoder_ffn_dim=decoder.feed_forward.hidden,
            activation_function="relu",
            scale_embedding=True,
            pad_token_id=pad,
            bos_token_id=start,
            decoder_start_token_id=start,
            eos_token_id=end,
            forced_eos_token_id=None,
        )
    ).to(model.output.weight.dtype)
    with torch.no_grad():
        theirs.model.shared.weight.copy_(model.decoder.embedding.tokens.weight)
        for ours, other in (
            *zip(model.encoder.layers, theirs.model.encoder.layers, strict=True),
            *zip(model.decoder.layers, theirs.model.decoder.layers, strict=True),
        ):
            _marian_attention(
                other.self_attn,
                ours.self_attention.qkv.weight,
                ours.self_attention.qkv.bias,
                ours.self_attention.output,
            )
            copy(other.self_attn_layer_norm, ours.self_attention_sublayer.outer)
            if ours.cross_attention is not None:
                cross = ours.cross_attention
                weight = torch.cat((cross.query.weight, cross.key_value.weight))
                bias = torch.cat((cross.query.bias, cross.key_value.bias))
                _marian_attention(other.encoder_attn, weight, bias, cross.output)
                copy(other.encoder_attn_layer_norm, ours.cross_attention_sublayer.outer)
            copy(other.fc1, ours.feed_forward.up)
            copy(other.fc2, ours.feed_forward.down)
            copy(other.final_layer_norm, ours.feed_forward_sublayer.outer)
    # The positions are a float32 table that our float64 would differ from.
    for stack in (theirs.model.encoder, theirs.model.decoder):
        stack.embed_positions.weight.data = model.encoder.position.table.clone()
    return theirs.eval()


def _marian_attention(theirs: nn.Module, weight: Tensor, bias: Tensor, output: nn.Linear) -> None:
    for part, w, b in zip((theirs.q_proj, theirs.k_proj, theirs.v_proj), weight.chunk(3), bias.chunk(3), strict=True):
        part.weight.copy_(w)
        part.bias.copy_(b)
    copy(theirs.out_proj, output)


def torch_transformer(model: EncoderDecoder) -> nn.Transformer:
    """`torch.nn.Transformer` without embeddings and projection, post- or pre-norm; a last norm where ours has one."""
    c = model.config
    heads, hidden = c.encoder.block.attention.heads, c.encoder.block.feed_forward.hidden
    first = c.encoder.block.norm_placement == "pre"
    kwargs = {"dropout": 0.0, "batch_first": True, "norm_first": first, "dtype": torch.float64}
    encoder_norm, decoder_norm = (nn.LayerNorm(c.dim, dtype=torch.float64) if first else None for _ in range(2))
    theirs = nn.Transformer(
        c.dim,
        heads,
        custom_encoder=nn.TransformerEncoder(
            nn.TransformerEncoderLayer(c.dim, heads, hidden, **kwargs),
            c.encoder.layers,
            norm=encoder_norm,
            enable_nested_tensor=False,
        ),
        custom_decoder=nn.TransformerDecoder(
            nn.TransformerDecoderLayer(c.dim, heads, hidden, **kwargs), c.decoder.layers, norm=decoder_norm
        ),
        batch_first=True,
    )
    if encoder_norm is not None and decoder_norm is not None:
        copy(encoder_norm, model.encoder.norm)
        copy(decoder_norm, model.decoder.norm)
    with torch.no_grad():
        for ours, other in (
            *zip(model.encoder.layers, theirs.encoder.layers, strict=True),
            *zip(model.decoder.layers, theirs.decoder.layers, strict=True),
        ):
            _torch_layer(other, ours, "before" if first else "outer")
    return theirs.eval()


def _torch_layer(theirs: nn.Module, ours: Block, norm: str) -> None:
    theirs.self_attn.in_proj_weight.copy_(ours.self_attention.qkv.weight)
    theirs.self_attn.in_proj_bias.copy_(ours.self_attention.qkv.bias)
    copy(theirs.self_attn.out_proj, ours.self_attention.output)
    norms = [ours.self_attention_sublayer, ours.feed_forward_sublayer]
    if ours.cross_attention is not None:
        cross = ours.cross_attention
        theirs.multihead_attn.in_proj_weight.copy_(torch.cat((cross.query.weight, cross.key_value.weight)))
        theirs.multihead_attn.in_proj_bias.copy_(torch.cat((cross.query.bias, cross.key_value.bias)))
        copy(theirs.multihead_attn.out_proj, cross.output)
        norms.insert(1, ours.cross_attention_sublayer)
    copy(theirs.linear1, ours.feed_forward.up)
    copy(theirs.linear2, ours.feed_forward.down)
    for index, sublayer in enumerate(norms, start=1):
        copy(getattr(theirs, f"norm{index}"), getattr(sublayer, norm))
