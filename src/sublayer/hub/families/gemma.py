"""Gemma 1, 2 and 3, the text models.

Embeddings times sqrt(D), norms that scale by 1 + weight, a gated network with GELU (https://arxiv.org/abs/2403.08295).
Gemma 2 has a norm on either side of each sub-layer, caps on scores and logits, and a window in every second layer
(https://arxiv.org/abs/2408.00118); Gemma 3 norms of queries and keys instead of the cap on scores, and other rotary
positions in the layers with a window (https://arxiv.org/abs/2503.19786).
"""

from __future__ import annotations

from typing import Any

from sublayer import config
from sublayer.hub.families.llama import ACTIVATION, BIAS, KEYS, llama_like, norm_queries_and_keys
from sublayer.hub.families.parts import ACTIVATION_NAMES, ACTIVATIONS, put_windows, write_windows
from sublayer.hub.families.rope import read_rotary, write_rotary
from sublayer.hub.family import Settings
from sublayer.hub.keys import Key, replaced

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
APPROXIMATE = "gelu_pytorch_tanh"
# The first releases say "gelu" and mean the approximation.
EARLY = {**ACTIVATIONS, "gelu": "gelu_tanh"}
GEMMA_KEYS = replaced((*KEYS, BIAS), Key("hidden_act", ACTIVATION, APPROXIMATE, EARLY, ACTIVATION_NAMES))
GEMMA2_KEYS = replaced(
    (*KEYS, BIAS),
    Key("hidden_activation", ACTIVATION, APPROXIMATE, ACTIVATIONS, ACTIVATION_NAMES),
    Key("attn_logit_softcapping", "decoder.block.attention.softcap"),
    Key("final_logit_softcapping", "logit_softcap"),
)
BLOCK: dict[str, Any] = {"norm": {"type": "rms", "plus_one": True}}
SANDWICH = BLOCK | {"norm_placement": "sandwich"}
SCALED = {"scale": True}


def _read_gemma(settings: Settings, tree: dict[str, Any]) -> None:
    settings.only("use_bidirectional_attention", False)
    settings.only("hidden_activation", None, APPROXIMATE)


def _read_sandwich(settings: Settings, tree: dict[str, Any]) -> None:
    """What a layer of Gemma 2 and 3 is, but for its window."""
    settings.only("use_bidirectional_attention", False)
    settings.skip("hidden_act")  # without effect beside `hidden_activation`
    tree["decoder"]["block"]["attention"]["scale"] = settings.need("query_pre_attn_scalar") ** -0.5


def _write_sandwich(tree: config.DecoderOnly, frame: dict[str, Any]) -> dict[str, Any]:
    scale = tree.decoder.blocks[0].attention.scale
    return frame | {
        "query_pre_attn_scalar": frame["head_dim"] if scale is None else round(scale**-2),
        # Even a model whose layers have no window is asked for its size.
        **write_windows(tree.decoder.blocks, unused=4096),
    }


def _read_gemma2(settings: Settings, tree: dict[str, Any]) -> None:
    _read_sandwich(settings, tree)
    window = settings.get("sliding_window")
    settings.only("sliding_window_size", None, window)
    every_second = [layer % 2 == 0 for layer in range(tree["decoder"]["layers"])]
    put_windows(settings, tree, window, every_second)


def _read_gemma3(settings: Settings, tree: dict[str, Any]) -> None:
    settings.only("attn_logit_softcapping", None)
    _read_sandwich(settings, tree)
    norm_queries_and_keys(settings, tree)
    pattern = settings.get("sliding_window_pattern", settings.get("_sliding_window_pattern", 6))
    narrow = [(layer + 1) % pattern != 0 for layer in range(tree["decoder"]["layers"])]
    put_windows(settings, tree, settings.get("sliding_window"), narrow, _read_nearby(settings))


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


GEMMA = llama_like("gemma", "GemmaForCausalLM", GEMMA_KEYS, GEMMA_DEFAULTS, BLOCK, embedding=SCALED, read=_read_gemma)
GEMMA2 = llama_like(
    "gemma2",
    "Gemma2ForCausalLM",
    GEMMA2_KEYS,
    GEMMA2_DEFAULTS,
    SANDWICH,
    _write_sandwich,
    embedding=SCALED,
    read=_read_gemma2,
)
GEMMA3 = llama_like(
    "gemma3_text",
    "Gemma3ForCausalLM",
    GEMMA2_KEYS,
    GEMMA3_DEFAULTS,
    SANDWICH,
    _write_gemma3,
    embedding=SCALED,
    rotary=read_rotary,
    read=_read_gemma3,
)
