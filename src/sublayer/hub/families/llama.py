"""Llama and what is built like it: Mistral and SmolLM3.

Blocks of grouped attention with rotary positions and a gated network, each after an RMSNorm (Touvron et al. 2023,
https://arxiv.org/abs/2302.13971). Mistral has a window (https://arxiv.org/abs/2310.06825), SmolLM3 layers without
positions. What reads and writes the keys that all such families share stands here too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sublayer import config
from sublayer.config.presets import merge
from sublayer.hub.families.parts import (
    ACTIVATION_NAMES,
    ACTIVATIONS,
    LayerRules,
    Names,
    decoder_family,
    put_blocks,
    read_windows,
    usual_block,
    with_windows,
    write_windows,
)
from sublayer.hub.families.rope import read_rotary
from sublayer.hub.family import Family, Settings
from sublayer.hub.keys import Key
from sublayer.hub.rules import Rule, affine, affine_joined

OLD_BUFFERS = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)
"""Frequencies that transformers before 4.32 stored; they follow from the config."""

# --- config: what all of them share ------------------------------------------------------------------------------

ACTIVATION = "decoder.block.feed_forward.activation"
KEYS = (
    Key("vocab_size", "vocab_size", 32_000),
    Key("hidden_size", "dim", 4096),
    Key("intermediate_size", "decoder.block.feed_forward.hidden", 11_008),
    Key("num_hidden_layers", "decoder.layers", 32),
    Key("num_attention_heads", "decoder.block.attention.heads", 32),
    Key("num_key_value_heads", "decoder.block.attention.kv_heads"),
    Key("head_dim", "decoder.block.attention.head_dim"),
    Key("hidden_act", ACTIVATION, "silu", ACTIVATIONS, ACTIVATION_NAMES),
    Key("max_position_embeddings", "max_length", 2048),
    Key("rms_norm_eps", "decoder.block.norm.eps", 1e-6),
    Key("attention_dropout", "decoder.block.attention.dropout"),
    Key("tie_word_embeddings", "tied", False, null=True),
)
BIAS = Key("attention_bias", "decoder.block.attention.bias")
WINDOW = Key("sliding_window", "decoder.block.attention.window")
"""Of all layers."""
FRACTION = Key("partial_rotary_factor", "decoder.position.fraction")
"""Of each head, the part that is turned; read with the rest of the positions."""
BLOCK: Mapping[str, Any] = {
    "attention": {"bias": False},
    "feed_forward": {"type": "gated"},
    "norm": {"type": "rms"},
    "norm_placement": "pre",
}


def norm_queries_and_keys(settings: Settings, tree: dict[str, Any]) -> None:
    """Add a norm of queries and keys like that of the layers."""
    block = tree["decoder"]["block"]
    block["attention"]["query_key_norm"] = block["norm"]


def read_plain_rotary(settings: Settings, *, layer_type: str = "full_attention") -> config.Rotary:
    """Rotary positions of the whole head."""
    settings.only("partial_rotary_factor", 1.0)
    rotary = read_rotary(settings, layer_type=layer_type)
    if rotary.fraction != 1.0:
        raise settings.refusal("partial_rotary_factor", "supported: 1.0", rotary.fraction)
    return rotary


# --- tensors -----------------------------------------------------------------------------------------------------

NAMES = Names("model.embed_tokens", "model.norm", "lm_head", "model.layers")


def layer_rules(block: config.Block, dim: int) -> list[Rule]:
    """A layer with its projections apart."""
    return [*attention_rules(block.attention, dim), *norm_rules(block), *gated_rules(block.feed_forward)]


def attention_rules(attention: config.Attention, dim: int) -> list[Rule]:
    """[H d, D], [G d, D] and [G d, D] of theirs are one matrix of ours, [(H + 2 G) d, D]."""
    width = attention.width(dim)
    sizes = [attention.heads * width, attention.key_value_heads * width, attention.key_value_heads * width]
    theirs = [f"self_attn.{name}_proj" for name in "qkv"]
    found = affine_joined("self_attention.qkv", theirs, sizes, bias=attention.bias)
    found += affine("self_attention.output", "self_attn.o_proj", bias=attention.biased_output)
    if attention.query_key_norm is not None:
        found += affine("self_attention.query_norm", "self_attn.q_norm", bias=False)
        found += affine("self_attention.key_norm", "self_attn.k_norm", bias=False)
    return found


NORMS: Mapping[config.NormPlacement, Mapping[str, str]] = {
    "pre": {
        "self_attention_sublayer.before": "input_layernorm",
        "feed_forward_sublayer.before": "post_attention_layernorm",
    },
    "output": {
        "self_attention_sublayer.after": "post_attention_layernorm",
        "feed_forward_sublayer.after": "post_feedforward_layernorm",
    },
    "sandwich": {
        "self_attention_sublayer.before": "input_layernorm",
        "self_attention_sublayer.after": "post_attention_layernorm",
        "feed_forward_sublayer.before": "pre_feedforward_layernorm",
        "feed_forward_sublayer.after": "post_feedforward_layernorm",
    },
}


def norm_rules(block: config.Block) -> list[Rule]:
    return [rule for ours, theirs in NORMS[block.norm_placement].items() for rule in affine(ours, theirs, bias=False)]


def gated_rules(part: config.FeedForward) -> list[Rule]:
    """[F, D] and [F, D] of theirs are one matrix of ours, [2 F, D]: the gate first."""
    assert isinstance(part, config.Gated)
    theirs = ["mlp.gate_proj", "mlp.up_proj"]
    found = affine_joined("feed_forward.gate_up", theirs, [part.hidden, part.hidden], bias=part.bias)
    return [*found, *affine("feed_forward.down", "mlp.down_proj", bias=part.bias)]


# --- Llama, Mistral, SmolLM3 -------------------------------------------------------------------------------------

MISTRAL_DEFAULTS = {
    "intermediate_size": 14_336,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
    "sliding_window": 4096,
}
SMOLLM3_DEFAULTS = {
    "vocab_size": 128_256,
    "hidden_size": 2048,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32_768,
    "rope_theta": 2_000_000.0,
    "no_rope_layer_interval": 4,
    "tie_word_embeddings": True,
}


def _read_smollm3(settings: Settings, tree: dict[str, Any]) -> None:
    settings.skip("max_window_layers")  # without effect: the layers with a window are those without positions
    layers, interval = tree["decoder"]["layers"], settings.need("no_rope_layer_interval")
    rotated = settings.get("no_rope_layers", [(layer + 1) % interval for layer in range(layers)])
    if len(rotated) != layers:
        raise settings.refusal("no_rope_layers", "supported: one for each layer")
    window = settings.get("sliding_window")
    narrow = settings.get("use_sliding_window", False) and window is not None
    windows = read_windows(settings, window, [narrow and not turns for turns in rotated])
    blocks = [
        block if turns else block.model_copy(update={"position": config.NoPosition()})
        for block, turns in zip(with_windows(usual_block(tree), windows), rotated, strict=True)
    ]
    put_blocks(tree, blocks)


def _write_smollm3(tree: config.DecoderOnly, frame: dict[str, Any]) -> dict[str, Any]:
    blocks = tree.decoder.blocks
    windows = write_windows(blocks)
    return frame | {
        "no_rope_layers": [int(not isinstance(block.position, config.NoPosition)) for block in blocks],
        "use_sliding_window": windows["sliding_window"] is not None,
        **windows,
    }


def llama_like(
    name: str,
    architecture: str,
    keys: Sequence[Key] = KEYS,
    defaults: Mapping[str, Any] | None = None,
    block: Mapping[str, Any] | None = None,
    write: Callable[[config.DecoderOnly, dict[str, Any]], dict[str, Any] | None] = lambda _, frame: frame,
    *,
    embedding: Mapping[str, Any] | None = None,
    layer: LayerRules = layer_rules,
    rotary: Callable[[Settings], config.Rotary] = read_plain_rotary,
    **more: Any,
) -> Family:
    """A family whose settings and tensors are called as Llama's, but for what it says otherwise.

    Args:
        block, embedding: what is another in its layers (over `BLOCK`) and on its embeddings, as plain data.
        layer: the tensors of a layer. Everything else: as in `decoder_family`.
    """

    def written(tree: config.DecoderOnly, frame: dict[str, Any]) -> dict[str, Any] | None:
        attention = tree.decoder.blocks[0].attention
        heads = {"num_key_value_heads": attention.key_value_heads, "head_dim": attention.width(tree.dim)}
        return write(tree, frame | heads)

    form = {"embedding": {"scale": False, **(embedding or {})}, "decoder": {"block": merge(BLOCK, block or {})}}
    parts = (config.RMSNorm, config.Rotary)
    more |= {"defaults": defaults, "rotary": rotary, "write": written, "ignored": OLD_BUFFERS}
    return decoder_family(name, architecture, keys, form, parts, NAMES, layer, **more)


GATED_BIAS = Key("mlp_bias", "decoder.block.feed_forward.bias")
LLAMA = llama_like("llama", "LlamaForCausalLM", (*KEYS, BIAS, GATED_BIAS))
MISTRAL = llama_like("mistral", "MistralForCausalLM", (*KEYS, WINDOW), MISTRAL_DEFAULTS)
SMOLLM3 = llama_like(
    "smollm3",
    "SmolLM3ForCausalLM",
    (*KEYS, BIAS, GATED_BIAS),
    SMOLLM3_DEFAULTS,
    write=_write_smollm3,
    read=_read_smollm3,
)
