"""GLM-4 of 0414 (https://arxiv.org/abs/2406.12793): norms before and after, half of each head turned, pair by pair."""

from __future__ import annotations

from sublayer import config
from sublayer.hub.families.llama import BIAS, FRACTION, KEYS, attention_rules, llama_like
from sublayer.hub.families.rope import read_rotary
from sublayer.hub.family import Settings
from sublayer.hub.rules import Rule, affine

GLM4_DEFAULTS = {
    "vocab_size": 151_552,
    "intermediate_size": 13_696,
    "num_hidden_layers": 40,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1.5625e-7,
    "attention_bias": True,
    "partial_rotary_factor": 0.5,
}


def _read_rotary(settings: Settings) -> config.Rotary:
    return read_rotary(settings).model_copy(update={"layout": "interleaved"})


def _layer_rules(block: config.Block, dim: int) -> list[Rule]:
    """Gate and up are one matrix there too, in our order; the norms are called otherwise than Gemma's."""
    return [
        *attention_rules(block.attention, dim),
        *affine("feed_forward.gate_up", "mlp.gate_up_proj", bias=False),
        *affine("feed_forward.down", "mlp.down_proj", bias=False),
        *affine("self_attention_sublayer.before", "input_layernorm", bias=False),
        *affine("self_attention_sublayer.after", "post_self_attn_layernorm", bias=False),
        *affine("feed_forward_sublayer.before", "post_attention_layernorm", bias=False),
        *affine("feed_forward_sublayer.after", "post_mlp_layernorm", bias=False),
    ]


GLM4 = llama_like(
    "glm4",
    "Glm4ForCausalLM",
    (*KEYS, BIAS, FRACTION),
    GLM4_DEFAULTS,
    {"attention": {"output_bias": False}, "norm_placement": "sandwich"},
    layer=_layer_rules,
    rotary=_read_rotary,
)
