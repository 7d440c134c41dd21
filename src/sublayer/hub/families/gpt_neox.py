"""GPT-NeoX and Pythia (https://arxiv.org/abs/2204.06745): both sub-layers side by side, each with a norm of its own."""

from __future__ import annotations

from functools import partial
from typing import Any

from sublayer import config
from sublayer.hub.families.parts import ACTIVATION_NAMES, ACTIVATIONS, Names, decoder_family, fused_rules
from sublayer.hub.families.rope import read_rotary
from sublayer.hub.family import Settings
from sublayer.hub.keys import Key
from sublayer.hub.rules import Rule, affine

KEYS = (
    Key("vocab_size", "vocab_size", 50_432),
    Key("hidden_size", "dim", 6144),
    Key("intermediate_size", "decoder.block.feed_forward.hidden", 24_576),
    Key("num_hidden_layers", "decoder.layers", 44),
    Key("num_attention_heads", "decoder.block.attention.heads", 64),
    Key("hidden_act", "decoder.block.feed_forward.activation", "gelu", ACTIVATIONS, ACTIVATION_NAMES),
    Key("max_position_embeddings", "max_length", 2048),
    Key("layer_norm_eps", "decoder.block.norm.eps", 1e-5),
    Key("attention_bias", "decoder.block.attention.bias"),
    Key("attention_dropout", "decoder.block.attention.dropout"),
    Key("hidden_dropout", "decoder.block.dropout embedding.dropout"),
    Key("rotary_pct", "decoder.position.fraction", 0.25),
    Key("tie_word_embeddings", "tied", False, null=True),
)
FORM: dict[str, Any] = {
    "embedding": {"scale": False},
    "decoder": {"block": {"feed_forward": {"type": "position-wise"}, "norm": {"type": "layer"}}},
}


def _read(settings: Settings, tree: dict[str, Any]) -> None:
    settings.skip("classifier_dropout")
    side_by_side = settings.get("use_parallel_residual", True)
    tree["decoder"]["block"]["norm_placement"] = "parallel" if side_by_side else "pre"


def _write(tree: config.DecoderOnly, frame: dict[str, Any]) -> dict[str, Any]:
    return frame | {
        "use_parallel_residual": tree.decoder.blocks[0].norm_placement == "parallel",
        "rotary_emb_base": frame.pop("rope_theta"),
    }


NAMES = Names("gpt_neox.embed_in", "gpt_neox.final_layer_norm", "embed_out", "gpt_neox.layers")


def _layer_rules(block: config.Block, dim: int) -> list[Rule]:
    return [
        *fused_rules(block.attention, dim, "attention.query_key_value"),
        *affine("self_attention.output", "attention.dense", bias=block.attention.biased_output),
        *affine("self_attention_sublayer.before", "input_layernorm"),
        *affine("feed_forward_sublayer.before", "post_attention_layernorm"),
        *affine("feed_forward.up", "mlp.dense_h_to_4h"),
        *affine("feed_forward.down", "mlp.dense_4h_to_h"),
    ]


GPT_NEOX = decoder_family(
    "gpt_neox",
    "GPTNeoXForCausalLM",
    KEYS,
    FORM,
    (config.PositionWise, config.LayerNorm, config.Rotary),
    NAMES,
    _layer_rules,
    rotary=partial(read_rotary, base_key="rotary_emb_base", fraction_key="rotary_pct"),
    read=_read,
    write=_write,
    older=((r"^lm_head\.", "embed_out."),),
    ignored=(r"gpt_neox\.layers\.\d+\.attention\.((masked_)?bias|rotary_emb\.inv_freq)",),
)
