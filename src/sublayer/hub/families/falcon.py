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
from sublayer.hub.families.parts import ACTIVATION_NAMES, ACTIVATIONS, Names, decoder_family, fused_rules
from sublayer.hub.families.rope import read_rotary
from sublayer.hub.family import Settings
from sublayer.hub.keys import Key
from sublayer.hub.rules import Rule, affine

KEYS = (
    Key("vocab_size", "vocab_size", 65_024),
    Key("hidden_size", "dim", 4544),
    Key("ffn_hidden_size", "decoder.block.feed_forward.hidden"),
    Key("num_hidden_layers", "decoder.layers", 32),
    Key("num_attention_heads", "decoder.block.attention.heads", 71),
    Key("activation", "decoder.block.feed_forward.activation", "gelu", ACTIVATIONS, ACTIVATION_NAMES),
    Key("max_position_embeddings", "max_length", 2048),
    Key("layer_norm_epsilon", "decoder.block.norm.eps", 1e-5),
    Key("bias", "decoder.block.attention.bias decoder.block.feed_forward.bias"),
    Key("attention_dropout", "decoder.block.attention.dropout"),
    Key("hidden_dropout", "decoder.block.dropout"),
    Key("tie_word_embeddings", "tied"),
)
FORM: dict[str, Any] = {
    "decoder": {
        "block": {
            "attention": {"bias": False},
            "feed_forward": {"type": "position-wise", "bias": False},
            "norm": {"type": "layer"},
        }
    },
}


def _read(settings: Settings, tree: dict[str, Any]) -> None:
    settings.only("alibi", False)
    settings.only("partial_rotary_factor", 1.0)
    block = tree["decoder"]["block"]
    block["attention"]["kv_heads"], block["norm_placement"] = _form(settings)
    block["feed_forward"].setdefault("hidden", 4 * tree["dim"])


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


def _write(tree: config.DecoderOnly, frame: dict[str, Any]) -> dict[str, Any]:
    block, groups = tree.decoder.blocks[0], tree.decoder.blocks[0].attention.key_value_heads
    old = block.norm_placement == "pre" or (block.norm_placement == "parallel-shared" and groups == 1)
    return frame | {
        "num_kv_heads": groups,
        "alibi": False,
        "parallel_attn": block.norm_placement != "pre",
        "multi_query": old and groups == 1,
        "new_decoder_architecture": not old,
        "num_ln_in_parallel_attn": None if old else 2 if block.norm_placement == "parallel" else 1,
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
    return [
        *fused_rules(block.attention, dim, "self_attention.query_key_value"),
        *affine("self_attention.output", "self_attention.dense", bias=biased),
        *(rule for ours, theirs in NORMS[block.norm_placement].items() for rule in affine(ours, theirs)),
        *affine("feed_forward.up", "mlp.dense_h_to_4h", bias=biased),
        *affine("feed_forward.down", "mlp.dense_4h_to_h", bias=biased),
    ]


FALCON = decoder_family(
    "falcon",
    "FalconForCausalLM",
    KEYS,
    FORM,
    (config.PositionWise, config.LayerNorm, config.Rotary),
    NAMES,
    _layer_rules,
    rotary=read_rotary,
    read=_read,
    write=_write,
    ignored=(r"transformer\.h\.\d+\.self_attention\.rotary_emb\.inv_freq",),
)
