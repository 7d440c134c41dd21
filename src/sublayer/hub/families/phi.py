"""Phi-3 (https://arxiv.org/abs/2404.14219): Llama's form with its projections fused, and a rotation of part of a head.

The models for long contexts are refused: with rope scaling "longrope" all frequencies change once a text passes a
length, and with them what the cache holds.
"""

from __future__ import annotations

from typing import Any

from sublayer import config
from sublayer.hub.families.llama import (
    LLAMA_DEFAULTS,
    llama_like,
    norm_rules,
    read_attention,
    read_block,
)
from sublayer.hub.families.parts import decoder_only
from sublayer.hub.families.rope import read_rotary
from sublayer.hub.family import Settings, Tree
from sublayer.hub.rules import Rule, affine

PHI3_DEFAULTS = LLAMA_DEFAULTS | {
    "vocab_size": 32_064,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
}


def _read(settings: Settings) -> Tree:
    settings.skip("original_max_position_embeddings")  # for the scaling that is refused
    for key in ("rope_scaling", "rope_parameters"):
        table: dict[str, Any] = settings.get(key, {})
        kind = table.get("rope_type", table.get("type", "default"))
        if kind != "default":
            # Here "yarn" and "su" are older names of "longrope".
            raise settings.refusal(key, "supported: models without rope scaling", kind)
    attention = read_attention(settings, bias=False, window=settings.get("sliding_window"))
    block = read_block(settings, attention, dropout=float(settings.get("resid_pdrop", 0.0)))
    embedding = config.Embedding(scale=False, dropout=float(settings.get("embd_pdrop", 0.0)))
    blocks = [block] * settings.need("num_hidden_layers")
    return decoder_only(settings, blocks, read_rotary(settings), embedding=embedding)


def _write(tree: config.DecoderOnly, frame: dict[str, Any]) -> dict[str, Any]:
    block = tree.decoder.blocks[0]
    assert isinstance(tree.decoder.position, config.Rotary)
    return frame | {
        "sliding_window": block.attention.window,
        "partial_rotary_factor": tree.decoder.position.fraction,
        "resid_pdrop": block.dropout,
        "embd_pdrop": tree.embedding.dropout,
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


PHI3 = llama_like("phi3", "Phi3ForCausalLM", PHI3_DEFAULTS, _read, _write, _layer_rules)
