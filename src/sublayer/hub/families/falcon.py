"""Falcon (https://arxiv.org/abs/2311.16867), in its three forms.

7B: one head of keys and values, both sub-layers side by side after one norm. 40B and later ("new decoder
architecture"): groups of heads, and a norm for each of the two, or one. Without `parallel_attn`: one sub-layer after
the other, a key for each query. ALiBi (Falcon-RW) is refused: its own code rounds the penalty to bfloat16, so that it
is no function of the distance, and no equation of ours gives its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sublayer import config
from sublayer.hub.families.parts import ACTIVATION_NAMES, ACTIVATIONS, Names, decoder_family, decoder_only, fused_heads
from sublayer.hub.families.rope import read_rotary, write_rotary
from sublayer.hub.family import Settings, Tree
from sublayer.hub.rules import Rule, affine, permuted

DEFAULTS = {
    "vocab_size": 65_024,
    "hidden_size": 4544,
    "num_hidden_layers": 32,
    "num_attention_heads": 71,
    "max_position_embeddings": 2048,
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": True,
}


def _read(settings: Settings) -> Tree:
    settings.only("alibi", False)
    settings.only("partial_rotary_factor", 1.0)
    groups, norm_placement = _form(settings)
    biased = settings.get("bias", False)
    block = config.Block(
        attention=config.Attention(
            heads=settings.need("num_attention_heads"),
            kv_heads=groups,
            bias=biased,
            dropout=float(settings.get("attention_dropout", 0.0)),
        ),
        feed_forward=config.PositionWise(
            hidden=settings.get("ffn_hidden_size") or 4 * settings.need("hidden_size"),
            activation=settings.one_of("activation", ACTIVATIONS, "gelu"),
            bias=biased,
        ),
        norm=config.LayerNorm(eps=float(settings.need("layer_norm_epsilon"))),
        norm_placement=norm_placement,
        dropout=float(settings.get("hidden_dropout", 0.0)),
    )
    return decoder_only(settings, [block] * settings.need("num_hidden_layers"), read_rotary(settings))


def _form(settings: Settings) -> tuple[int, config.NormPlacement]:
    """Heads of keys and values, and how the sub-layers are joined."""
    heads, groups = settings.need("num_attention_heads"), settings.get("num_kv_heads")
    side_by_side, single = settings.get("parallel_attn", True), settings.get("multi_query", True)
    if settings.get("new_decoder_architecture", False):
        settings.only("parallel_attn", True)
        norms = settings.one_of("num_ln_in_parallel_attn", {1: "parallel-shared", 2: "parallel"}, 2)
        return heads if groups is None else groups, norms
    settings.only("num_ln_in_parallel_attn", None, 1)
    if not single:
        settings.only("num_kv_heads", None, heads)  # it is not looked at, and no others fit the layout of the weights
    return 1 if single else heads, "parallel-shared" if side_by_side else "pre"


def _write(tree: config.DecoderOnly) -> dict[str, Any] | None:
    if not isinstance(tree.decoder.position, config.Rotary):
        return None
    block, rotary = tree.decoder.blocks[0], write_rotary(tree.decoder.position)
    attention, part, norm = block.attention, block.feed_forward, block.norm
    if rotary is None or not isinstance(part, config.PositionWise) or not isinstance(norm, config.LayerNorm):
        return None
    old = block.norm_placement == "pre" or (
        block.norm_placement == "parallel-shared" and attention.key_value_heads == 1
    )
    return {
        "hidden_size": tree.dim,
        "ffn_hidden_size": part.hidden,
        "num_hidden_layers": tree.decoder.layers,
        "num_attention_heads": attention.heads,
        "num_kv_heads": attention.key_value_heads,
        "activation": ACTIVATION_NAMES[part.activation],
        "max_position_embeddings": tree.max_length,
        "layer_norm_epsilon": norm.eps,
        "bias": attention.bias,
        "attention_dropout": attention.dropout,
        "hidden_dropout": block.dropout,
        "alibi": False,
        "parallel_attn": block.norm_placement != "pre",
        "multi_query": old and attention.key_value_heads == 1,
        "new_decoder_architecture": not old,
        "num_ln_in_parallel_attn": None if old else 2 if block.norm_placement == "parallel" else 1,
        **rotary,
    }


NORMS: Mapping[config.NormPlacement, Mapping[str, str]] = {
    "pre": {
        "self_attention_sublayer.before": "input_layernorm",
        "feed_forward_sublayer.before": "post_attention_layernorm",
    },
    "parallel": {"self_attention_sublayer.before": "ln_attn", "feed_forward_sublayer.before": "ln_mlp"},
    "parallel-shared": {"shared_norm": "input_layernorm"},
}


NAMES = Names("transformer.word_embeddings", "transformer.ln_f", "lm_head", "transformer.h")


def _layer_rules(block: config.Block, dim: int) -> list[Rule]:
    biased = block.attention.bias
    order = fused_heads(block.attention, dim)
    kinds = ("weight", "bias") if biased else ("weight",)
    return [
        *(permuted(f"self_attention.qkv.{kind}", f"self_attention.query_key_value.{kind}", order) for kind in kinds),
        *affine("self_attention.output", "self_attention.dense", bias=biased),
        *(rule for ours, theirs in NORMS[block.norm_placement].items() for rule in affine(ours, theirs)),
        *affine("feed_forward.up", "mlp.dense_h_to_4h", bias=biased),
        *affine("feed_forward.down", "mlp.dense_4h_to_h", bias=biased),
    ]


FALCON = decoder_family(
    "falcon",
    "FalconForCausalLM",
    DEFAULTS,
    _read,
    _write,
    NAMES,
    _layer_rules,
    ignored=(r"transformer\.h\.\d+\.self_attention\.rotary_emb\.inv_freq",),
)
