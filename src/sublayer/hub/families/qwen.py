"""Qwen2, Qwen3, and what has experts: Qwen3-MoE and Mixtral.

Llama's form. Qwen2 has biases on queries, keys and values, and a window in its last layers
(https://arxiv.org/abs/2407.10671); Qwen3 a norm over each head's query and key instead (https://arxiv.org/abs/2505.09388).
"""

from __future__ import annotations

from typing import Any

from sublayer import config
from sublayer.hub.families.llama import (
    LLAMA_DEFAULTS,
    llama_like,
    read_attention,
    read_block,
    read_norm,
    read_plain_rotary,
)
from sublayer.hub.families.parts import decoder_only, read_windows, with_windows, write_windows
from sublayer.hub.family import Settings, Tree

QWEN2_DEFAULTS = LLAMA_DEFAULTS | {
    "vocab_size": 151_936,
    "intermediate_size": 22_016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32_768,
    "sliding_window": 4096,
    "max_window_layers": 28,
}
QWEN3_DEFAULTS = QWEN2_DEFAULTS | {"head_dim": 128}


def _read_qwen2(settings: Settings) -> Tree:
    return _tree(settings, read_attention(settings, bias=True, output_bias=False))


def _read_qwen3(settings: Settings) -> Tree:
    return _tree(settings, read_attention(settings, query_key_norm=read_norm(settings)))


def _tree(settings: Settings, attention: config.Attention) -> Tree:
    usual = read_block(settings, attention)
    narrow = settings.get("use_sliding_window", False)
    window = settings.get("sliding_window") if narrow else None
    first = settings.need("max_window_layers")
    layers = range(settings.need("num_hidden_layers"))
    windows = read_windows(settings, window, [window is not None and layer >= first for layer in layers])
    return decoder_only(settings, with_windows(usual, windows), read_plain_rotary(settings))


def _write_qwen2(tree: config.DecoderOnly, frame: dict[str, Any]) -> dict[str, Any]:
    del frame["attention_bias"]  # it has no such choice
    return _write_qwen3(tree, frame)


def _write_qwen3(tree: config.DecoderOnly, frame: dict[str, Any]) -> dict[str, Any]:
    blocks = tree.decoder.blocks
    full = [block.attention.window is None for block in blocks]
    return frame | {
        "use_sliding_window": not all(full),
        "max_window_layers": full.index(False) if False in full else len(full),
        **write_windows(blocks),
    }


QWEN2 = llama_like("qwen2", "Qwen2ForCausalLM", QWEN2_DEFAULTS, _read_qwen2, _write_qwen2)
QWEN3 = llama_like("qwen3", "Qwen3ForCausalLM", QWEN3_DEFAULTS, _read_qwen3, _write_qwen3)
