"""GPT-2 (Radford et al. 2019): learned positions, a LayerNorm before each sub-layer, matrices the other way around."""

from __future__ import annotations

from typing import Any

from sublayer import config
from sublayer.hub.families.parts import ACTIVATIONS, OLD_ACTIVATION_NAMES, Names, decoder_family, decoder_only
from sublayer.hub.family import Settings, Tree
from sublayer.hub.rules import Rule, affine, same, transposed

DEFAULTS = {
    "vocab_size": 50_257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "layer_norm_epsilon": 1e-5,
    "resid_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "attn_pdrop": 0.1,
}


def _read(settings: Settings) -> Tree:
    settings.skip("n_ctx", "summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels")
    settings.skip("summary_first_dropout")
    settings.only("scale_attn_by_inverse_layer_idx", False)
    settings.only("reorder_and_upcast_attn", False)
    block = config.Block(
        attention=config.Attention(
            heads=settings.need("n_head"),
            scale=None if settings.get("scale_attn_weights", True) else 1.0,
            dropout=float(settings.need("attn_pdrop")),
        ),
        feed_forward=config.PositionWise(
            hidden=settings.get("n_inner") or 4 * settings.need("n_embd"),
            activation=settings.one_of("activation_function", ACTIVATIONS, "gelu_new"),
        ),
        norm=config.LayerNorm(eps=float(settings.need("layer_norm_epsilon"))),
        norm_placement="pre",
        dropout=float(settings.need("resid_pdrop")),
    )
    return decoder_only(
        settings,
        [block] * settings.need("n_layer"),
        config.Learned(),
        dim_key="n_embd",
        length_key="n_positions",
        embedding=config.Embedding(scale=False, dropout=float(settings.need("embd_pdrop"))),
    )


def _write(tree: config.DecoderOnly) -> dict[str, Any] | None:
    block = tree.decoder.blocks[0]
    part, norm = block.feed_forward, block.norm
    if not isinstance(part, config.PositionWise) or not isinstance(norm, config.LayerNorm):
        return None
    return {
        "n_positions": tree.max_length,
        "n_embd": tree.dim,
        "n_layer": tree.decoder.layers,
        "n_head": block.attention.heads,
        "n_inner": part.hidden,
        "activation_function": OLD_ACTIVATION_NAMES[part.activation],
        "layer_norm_epsilon": norm.eps,
        "scale_attn_weights": block.attention.scale is None,
        "attn_pdrop": block.attention.dropout,
        "resid_pdrop": block.dropout,
        "embd_pdrop": tree.embedding.dropout,
    }


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
    DEFAULTS,
    _read,
    _write,
    NAMES,
    _layer_rules,
    # The files of the first release leave out the prefix.
    older=((r"^(?=(h\.\d|wte\.|wpe\.|ln_f\.))", "transformer."),),
    ignored=(r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",),
)
