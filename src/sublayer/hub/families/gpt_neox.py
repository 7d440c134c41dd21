"""GPT-NeoX and Pythia (https://arxiv.org/abs/2204.06745): both sub-layers side by side, each with a norm of its own."""

from __future__ import annotations

from typing import Any

from sublayer import config
from sublayer.hub.families.parts import ACTIVATION_NAMES, ACTIVATIONS, Names, decoder_family, decoder_only, fused_heads
from sublayer.hub.families.rope import read_rotary, write_rotary
from sublayer.hub.family import Settings, Tree
from sublayer.hub.rules import Rule, affine, permuted

DEFAULTS = {
    "vocab_size": 50_432,
    "hidden_size": 6144,
    "intermediate_size": 24_576,
    "num_hidden_layers": 44,
    "num_attention_heads": 64,
    "max_position_embeddings": 2048,
    "layer_norm_eps": 1e-5,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
}


def _read(settings: Settings) -> Tree:
    settings.skip("classifier_dropout")
    dropout = float(settings.get("hidden_dropout", 0.0))
    block = config.Block(
        attention=config.Attention(
            heads=settings.need("num_attention_heads"),
            bias=settings.get("attention_bias", True),
            dropout=float(settings.get("attention_dropout", 0.0)),
        ),
        feed_forward=config.PositionWise(
            hidden=settings.need("intermediate_size"), activation=settings.one_of("hidden_act", ACTIVATIONS, "gelu")
        ),
        norm=config.LayerNorm(eps=float(settings.need("layer_norm_eps"))),
        norm_placement="parallel" if settings.get("use_parallel_residual", True) else "pre",
        dropout=dropout,
    )
    return decoder_only(
        settings,
        [block] * settings.need("num_hidden_layers"),
        read_rotary(settings, base_key="rotary_emb_base", fraction_key="rotary_pct"),
        embedding=config.Embedding(scale=False, dropout=dropout),
    )


def _write(tree: config.DecoderOnly) -> dict[str, Any] | None:
    if not isinstance(tree.decoder.position, config.Rotary):
        return None
    block, rotary = tree.decoder.blocks[0], write_rotary(tree.decoder.position)
    part, norm = block.feed_forward, block.norm
    if rotary is None or not isinstance(part, config.PositionWise) or not isinstance(norm, config.LayerNorm):
        return None
    return {
        "hidden_size": tree.dim,
        "intermediate_size": part.hidden,
        "num_hidden_layers": tree.decoder.layers,
        "num_attention_heads": block.attention.heads,
        "hidden_act": ACTIVATION_NAMES[part.activation],
        "max_position_embeddings": tree.max_length,
        "layer_norm_eps": norm.eps,
        "attention_bias": block.attention.bias,
        "attention_dropout": block.attention.dropout,
        "hidden_dropout": block.dropout,
        "use_parallel_residual": block.norm_placement == "parallel",
        "rotary_pct": tree.decoder.position.fraction,
        "rotary_emb_base": rotary["rope_theta"],
        "rope_scaling": rotary["rope_scaling"],
    }


NAMES = Names("gpt_neox.embed_in", "gpt_neox.final_layer_norm", "embed_out", "gpt_neox.layers")


def _layer_rules(block: config.Block, dim: int) -> list[Rule]:
    attention = block.attention
    order = fused_heads(attention, dim)
    kinds = ("weight", "bias") if attention.bias else ("weight",)
    qkv = [permuted(f"self_attention.qkv.{kind}", f"attention.query_key_value.{kind}", order) for kind in kinds]
    return [
        *qkv,
        *affine("self_attention.output", "attention.dense", bias=attention.biased_output),
        *affine("self_attention_sublayer.before", "input_layernorm"),
        *affine("feed_forward_sublayer.before", "post_attention_layernorm"),
        *affine("feed_forward.up", "mlp.dense_h_to_4h"),
        *affine("feed_forward.down", "mlp.dense_4h_to_h"),
    ]


GPT_NEOX = decoder_family(
    "gpt_neox",
    "GPTNeoXForCausalLM",
    DEFAULTS,
    _read,
    _write,
    NAMES,
    _layer_rules,
    older=((r"^lm_head\.", "embed_out."),),
    ignored=(r"gpt_neox\.layers\.\d+\.attention\.((masked_)?bias|rotary_emb\.inv_freq)",),
)
