"""Qwen2, Qwen3, and what has experts: Qwen3-MoE and Mixtral.

Llama's form. Qwen2 has biases on queries, keys and values, and a window in its last layers
(https://arxiv.org/abs/2407.10671); Qwen3 a norm over each head's query and key instead (https://arxiv.org/abs/2505.09388).
"""

from __future__ import annotations

from typing import Any

from sublayer import config
from sublayer.hub.families.llama import BIAS, KEYS, llama_like, norm_queries_and_keys
from sublayer.hub.families.parts import put_windows, write_windows
from sublayer.hub.family import Settings

QWEN2_DEFAULTS = {
    "vocab_size": 151_936,
    "intermediate_size": 22_016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32_768,
    "sliding_window": 4096,
    "max_window_layers": 28,
}
QWEN3_DEFAULTS = QWEN2_DEFAULTS | {"head_dim": 128}


def _read_qwen2(settings: Settings, tree: dict[str, Any]) -> None:
    narrow = settings.get("use_sliding_window", False)
    window = settings.get("sliding_window") if narrow else None
    first = settings.need("max_window_layers")
    layers = range(tree["decoder"]["layers"])
    put_windows(settings, tree, window, [window is not None and layer >= first for layer in layers])


def _read_qwen3(settings: Settings, tree: dict[str, Any]) -> None:
    norm_queries_and_keys(settings, tree)
    _read_qwen2(settings, tree)


def _write(tree: config.DecoderOnly, frame: dict[str, Any]) -> dict[str, Any]:
    blocks = tree.decoder.blocks
    full = [block.attention.window is None for block in blocks]
    return frame | {
        "use_sliding_window": not all(full),
        "max_window_layers": full.index(False) if False in full else len(full),
        **write_windows(blocks),
    }


QWEN2 = llama_like(
    "qwen2",
    "Qwen2ForCausalLM",
    KEYS,
    QWEN2_DEFAULTS,
    {"attention": {"bias": True, "output_bias": False}},
    _write,
    read=_read_qwen2,
)
QWEN3 = llama_like("qwen3", "Qwen3ForCausalLM", (*KEYS, BIAS), QWEN3_DEFAULTS, write=_write, read=_read_qwen3)
