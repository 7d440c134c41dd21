"""Phi-3 (https://arxiv.org/abs/2404.14219): Llama's form with its projections fused, and a rotation of part of a head.

The models for long contexts are refused: with rope scaling "longrope" all frequencies change once a text passes a
length, and with them what the cache holds.
"""

from __future__ import annotations

from typing import Any

from sublayer import config
from sublayer.hub.families.llama import FRACTION, KEYS, WINDOW, llama_like, norm_rules
from sublayer.hub.families.rope import read_rotary
from sublayer.hub.family import Settings
from sublayer.hub.keys import Key
from sublayer.hub.rules import Rule, affine

PHI3_KEYS = (
    *KEYS,
    WINDOW,
    FRACTION,
    Key("resid_pdrop", "decoder.block.dropout"),
    Key("embd_pdrop", "embedding.dropout"),
)
PHI3_DEFAULTS = {
    "vocab_size": 32_064,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
}


def _read_rotary(settings: Settings) -> config.Rotary:
    settings.skip("original_max_position_embeddings")  # for the scaling that is refused
    for key in ("rope_scaling", "rope_parameters"):
        table: dict[str, Any] = settings.get(key, {})
        kind = table.get("rope_type", table.get("type", "default"))
        if kind != "default":
            # Here "yarn" and "su" are older names of "longrope".
            raise settings.refusal(key, "supported: models without rope scaling", kind)
    return read_rotary(settings)


def _write(tree: config.DecoderOnly, frame: dict[str, Any]) -> dict[str, Any]:
    return frame | {
        # Unset, it would be taken for the length of another model.
        "original_max_position_embeddings": tree.max_length,
    }


def _layer_rules(block: config.Block, dim: int) -> list[Rule]:
    """Queries, keys and values are one matrix there too, gate and up as well, in our order."""
    return [
        *affine("self_attention.qkv", "self_attn.qkv_proj", bias=False),
        *affine("self_attention.output", "self_attn.o_proj", bias=False),
        *norm_rules(block),
        *affine("feed_forward.gate_up", "mlp.gate_up_proj", bias=False),
        *affine("feed_forward.down", "mlp.down_proj", bias=False),
    ]


PHI3 = llama_like(
    "phi3", "Phi3ForCausalLM", PHI3_KEYS, PHI3_DEFAULTS, write=_write, layer=_layer_rules, rotary=_read_rotary
)
