"""OLMo-2 and 3: norms on what is written, and on queries and keys, over all heads (https://arxiv.org/abs/2501.00656).

OLMo-3 has a window in three of four layers, and scales the rotary positions of the others alone
(https://arxiv.org/abs/2512.13961).
"""

from __future__ import annotations

from typing import Any

from sublayer import config
from sublayer.hub.families.llama import BIAS, KEYS, llama_like, norm_queries_and_keys, read_plain_rotary
from sublayer.hub.families.parts import put_windows, write_windows
from sublayer.hub.families.rope import write_table
from sublayer.hub.family import Settings

OLMO2_DEFAULTS = {"vocab_size": 50_304, "rms_norm_eps": 1e-5}
OLMO3_DEFAULTS = OLMO2_DEFAULTS | {"sliding_window": 4096, "rope_theta": 500_000.0}
NEARBY = config.Rotary(base=500_000.0)
"""The positions of OLMo-3's layers with a window, where no table says others."""
BLOCK = {"attention": {"query_key_norm_over": "all"}, "norm_placement": "output"}


def _read_olmo3(settings: Settings, tree: dict[str, Any]) -> None:
    norm_queries_and_keys(settings, tree)
    tree["decoder"]["position"], nearby = _read_rotary(settings)
    narrow = [(layer + 1) % 4 != 0 for layer in range(tree["decoder"]["layers"])]
    put_windows(settings, tree, settings.need("sliding_window"), narrow, nearby)


def _read_rotary(settings: Settings) -> tuple[config.Rotary, config.Rotary]:
    """Of the layers that see everything, and of those with a window."""
    if settings.need("rope_theta") != NEARBY.base:
        # transformers 4 takes it for all layers, transformers 5 not for those with a window.
        raise settings.refusal("rope_theta", "give each kind of layer its own base, in rope_parameters")
    tables: dict[str, Any] = settings.get("rope_parameters", {})
    if not tables:
        return read_plain_rotary(settings), NEARBY
    if tables.keys() != {"full_attention", "sliding_attention"}:
        raise settings.refusal("rope_parameters", "supported: a table for full_attention and one for sliding_attention")
    return read_plain_rotary(settings), read_plain_rotary(settings, layer_type="sliding_attention")


def _write_olmo3(tree: config.DecoderOnly, frame: dict[str, Any]) -> dict[str, Any] | None:
    blocks, everywhere = tree.decoder.blocks, tree.decoder.position
    nearby = next((block.position or everywhere for block in blocks if block.attention.window is not None), NEARBY)
    # Even a model whose layers have no window is asked for its size.
    frame |= write_windows(blocks, unused=4096)
    if nearby == NEARBY and frame["rope_theta"] == NEARBY.base:
        return frame
    tables = {"full_attention": write_table(everywhere), "sliding_attention": write_table(nearby)}
    # Only the newer way has words for it.
    del frame["rope_theta"], frame["rope_scaling"]
    return None if None in tables.values() else frame | {"rope_parameters": tables}


OLMO2 = llama_like("olmo2", "Olmo2ForCausalLM", (*KEYS, BIAS), OLMO2_DEFAULTS, BLOCK, read=norm_queries_and_keys)
OLMO3 = llama_like("olmo3", "Olmo3ForCausalLM", (*KEYS, BIAS), OLMO3_DEFAULTS, BLOCK, _write_olmo3, read=_read_olmo3)
