"""GPT-2 (Radford et al. 2019): learned positions, a LayerNorm before each sub-layer, matrices the other way around."""

from __future__ import annotations

from typing import Any

from sublayer import config
from sublayer.hub.families.parts import ACTIVATIONS, OLD_ACTIVATION_NAMES, Names, decoder_family
from sublayer.hub.family import Settings
from sublayer.hub.keys import Key
from sublayer.hub.rules import Rule, affine, same, transposed

KEYS = (
    Key("vocab_size", "vocab_size", 50_257),
    Key("n_positions", "max_length", 1024),
    Key("n_embd", "dim", 768),
    Key("n_layer", "decoder.layers", 12),
    Key("n_head", "decoder.block.attention.heads", 12),
    Key("n_inner", "decoder.block.feed_forward.hidden"),
    Key("activation_function", "decoder.block.feed_forward.activation", "gelu_new", ACTIVATIONS, OLD_ACTIVATION_NAMES),
    Key("layer_norm_epsilon", "decoder.block.norm.eps", 1e-5),
    Key("resid_pdrop", "decoder.block.dropout", 0.1),
    Key("embd_pdrop", "embedding.dropout", 0.1),
    Key("attn_pdrop", "decoder.block.attention.dropout", 0.1),
    Key("tie_word_embeddings", "tied"),
)
FORM: dict[str, Any] = {
    "embedding": {"scale": False},
    "decoder": {
        "block": {"feed_forward": {"type": "position-wise"}, "norm": {"type": "layer"}, "norm_placement": "pre"},
        "position": {"type": "learned"},
    },
}


def _read(settings: Settings, tree: dict[str, Any]) -> None:
    settings.skip("n_ctx", "summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels")
    settings.skip("summary_first_dropout")
    settings.only("scale_attn_by_inverse_layer_idx", False)
    settings.only("reorder_and_upcast_attn", False)
    block = tree["decoder"]["block"]
    block["feed_forward"].setdefault("hidden", 4 * tree["dim"])
    block["attention"]["scale"] = None if settings.get("scale_attn_weights", True) else 1.0


def _write(tree: config.DecoderOnly, frame: dict[str, Any]) -> dict[str, Any]:
    return frame | {"scale_attn_weights": tree.decoder.blocks[0].attention.scale is None}


NAMES = Names("transformer.wte", "transformer.ln_f", "lm_head", "transformer.h", position="transformer.wpe")


def _layer_rules(block: config.Block, dim: int) -> list[Rule]:
    """The order of queries, keys and values is ours."""
    matrices = {
        "self_attention.qkv": "attn.c_attn",
        "self_attention.output": "attn.c_proj",
        "feed_forward.up": "mlp.c_fc",
        "feed_forward.down": "mlp.c_proj",
    }
    found = [*affine("self_attention_sublayer.before", "ln_1"), *affine("feed_forward_sublayer.before", "ln_2")]
    for ours, theirs in matrices.items():
        found += [transposed(f"{ours}.weight", f"{theirs}.weight"), same(f"{ours}.bias", f"{theirs}.bias")]
    return found


GPT2 = decoder_family(
    "gpt2",
    "GPT2LMHeadModel",
    KEYS,
    FORM,
    (config.PositionWise, config.LayerNorm),
    NAMES,
    _layer_rules,
    read=_read,
    write=_write,
    # The files of the first release leave out the prefix.
    older=((r"^(?=(h\.\d|wte\.|wpe\.|ln_f\.))", "transformer."),),
    ignored=(r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",),
)
