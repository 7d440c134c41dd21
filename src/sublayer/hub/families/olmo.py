"""OLMo-2 (https://arxiv.org/abs/2501.00656): norms on what is written, and on queries and keys, over all heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sublayer import config
from sublayer.hub.families.llama import (
    LLAMA_DEFAULTS,
    llama_like,
    read_attention,
    read_gated,
    read_norm,
    read_plain_rotary,
    write_frame,
)
from sublayer.hub.families.parts import causal_settings, decoder_only
from sublayer.hub.family import Tree

OLMO2_DEFAULTS = LLAMA_DEFAULTS | {"vocab_size": 50_304, "rms_norm_eps": 1e-5}


def _read(values: Mapping[str, Any]) -> Tree:
    settings = causal_settings(values, "olmo2", "Olmo2ForCausalLM", OLMO2_DEFAULTS)
    norm = read_norm(settings)
    block = config.Block(
        attention=read_attention(settings, query_key_norm=norm, query_key_norm_over="all"),
        feed_forward=read_gated(settings),
        norm=norm,
        wiring="output",
    )
    return decoder_only(settings, [block] * settings.need("num_hidden_layers"), read_plain_rotary(settings))


def _write(tree: Tree) -> dict[str, Any] | None:
    return write_frame(tree, "olmo2", "Olmo2ForCausalLM")


OLMO2 = llama_like("olmo2", _read, _write)
