"""Gemma 1, 2 and 3, the text models.

Embeddings times sqrt(D), norms that scale by 1 + weight, a gated network with GELU (https://arxiv.org/abs/2403.08295).
Gemma 2 has a norm on either side of each sub-layer, caps on scores and logits, and a window in every second layer
(https://arxiv.org/abs/2408.00118); Gemma 3 norms of queries and keys instead of the cap on scores, and other rotary
positions in the layers with a window (https://arxiv.org/abs/2503.19786).
"""

from __future__ import annotations

from typing import Any

from sublayer import config
from sublayer.hub.families.llama import (
    llama_like,
    read_attention,
    read_block,
    read_norm,
    read_plain_rotary,
)
from sublayer.hub.families.parts import (
    ACTIVATION_NAMES,
    ACTIVATIONS,
    decoder_only,
    read_windows,
    with_windows,
    write_windows,
)
from sublayer.hub.families.rope import read_rotary, write_rotary
from sublayer.hub.family import Settings, Tree

GEMMA_DEFAULTS = {
    "vocab_size": 256_000,
    "hidden_size": 3072,
    "intermediate_size": 24_576,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 256,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}
GEMMA2_DEFAULTS = GEMMA_DEFAULTS | {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}
GEMMA3_DEFAULTS = GEMMA2_DEFAULTS | {
    "vocab_size": 262_208,
    "max_position_embeddings": 131_072,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": 10_000.0,
}
SCALED = config.Embedding(scale=True)


def _block(
    settings: Settings, attention: config.Attention, activation: config.Activation, **fields: Any
) -> config.Block:
    gated = config.Gated(hidden=settings.need("intermediate_size"), activation=activation)
    return read_block(settings, attention, gated, norm=read_norm(settings, plus_one=True), **fields)


def _read_gemma(settings: Settings) -> Tree:
    settings.only("use_bidirectional_attention", False)
    settings.only("hidden_activation", None, "gelu_pytorch_tanh")
    # The first releases say "gelu" and mean the approximation.
    activations = {**ACTIVATIONS, "gelu": "gelu_tanh"}
    activation = settings.one_of("hidden_act", activations, "gelu_pytorch_tanh")
    block = _block(settings, read_attention(settings), activation)
    blocks = [block] * settings.need("num_hidden_layers")
    return decoder_only(settings, blocks, read_plain_rotary(settings), embedding=SCALED)


def _sandwich(settings: Settings, **fields: Any) -> config.Block:
    """What a layer of Gemma 2 and 3 is, but for its window."""
    settings.only("use_bidirectional_attention", False)
    settings.skip("hidden_act")  # without effect beside `hidden_activation`
    activation = settings.one_of("hidden_activation", ACTIVATIONS, "gelu_pytorch_tanh")
    attention = read_attention(settings, scale=settings.need("query_pre_attn_scalar") ** -0.5, **fields)
    return _block(settings, attention, activation, norm_placement="sandwich")


def _write_sandwich(tree: config.DecoderOnly, frame: dict[str, Any]) -> dict[str, Any]:
    attention, part = tree.decoder.blocks[0].attention, tree.decoder.blocks[0].feed_forward
    del frame["hidden_act"]
    return frame | {
        "hidden_activation": ACTIVATION_NAMES[part.activation],
        "query_pre_attn_scalar": frame["head_dim"] if attention.scale is None else round(attention.scale**-2),
        "attn_logit_softcapping": attention.softcap,
        "final_logit_softcapping": tree.logit_softcap,
        # Even a model whose layers have no window is asked for its size.
        **write_windows(tree.decoder.blocks, unused=4096),
    }


def _read_gemma2(settings: Settings) -> Tree:
    window = settings.get("sliding_window")
    settings.only("sliding_window_size", None, window)
    every_second = [layer % 2 == 0 for layer in range(settings.need("num_hidden_layers"))]
    block = _sandwich(settings, softcap=settings.get("attn_logit_softcapping"))
    return decoder_only(
        settings,
        with_windows(block, read_windows(settings, window, every_second)),
        read_plain_rotary(settings),
        embedding=SCALED,
        logit_softcap=settings.get("final_logit_softcapping"),
    )


def _read_gemma3(settings: Settings) -> Tree:
    settings.only("attn_logit_softcapping", None)
    pattern = settings.get("sliding_window_pattern", settings.get("_sliding_window_pattern", 6))
    narrow = [(layer + 1) % pattern != 0 for layer in range(settings.need("num_hidden_layers"))]
    windows = read_windows(settings, settings.get("sliding_window"), narrow)
    usual = _sandwich(settings, query_key_norm=read_norm(settings, plus_one=True))
    return decoder_only(
        settings,
        with_windows(usual, windows, _read_nearby(settings)),
        read_rotary(settings),
        embedding=SCALED,
        logit_softcap=settings.get("final_logit_softcapping"),
    )


def _read_nearby(settings: Settings) -> config.Rotary:
    """The positions of the layers with a window: without scaling, whatever the others have."""
    if "sliding_attention" in settings.get("rope_parameters", {}):
        return read_rotary(settings, layer_type="sliding_attention", base_key="rope_local_base_freq")
    return config.Rotary(base=float(settings.get("rope_local_base_freq")))


def _write_gemma3(tree: config.DecoderOnly, frame: dict[str, Any]) -> dict[str, Any] | None:
    windowed = [block for block in tree.decoder.blocks if block.attention.window is not None]
    nearby = windowed[0].position if windowed else None
    if isinstance(nearby, config.Rotary) and nearby.scaling != config.Unscaled():
        # The older keys scale only the others; the newer ones have a table for each kind.
        return None
    usual = tree.decoder.position
    assert isinstance(usual, config.Rotary)
    base = nearby.base if isinstance(nearby, config.Rotary) else usual.base
    return _write_sandwich(tree, frame) | (write_rotary(usual) or {}) | {"rope_local_base_freq": base}


GEMMA = llama_like("gemma", "GemmaForCausalLM", GEMMA_DEFAULTS, _read_gemma)
GEMMA2 = llama_like("gemma2", "Gemma2ForCausalLM", GEMMA2_DEFAULTS, _read_gemma2, _write_sandwich)
GEMMA3 = llama_like("gemma3_text", "Gemma3ForCausalLM", GEMMA3_DEFAULTS, _read_gemma3, _write_gemma3)
