"""Llama and what is built like it: Mistral and SmolLM3.

Blocks of grouped attention with rotary positions and a gated network, each after an RMSNorm (Touvron et al. 2023,
https://arxiv.org/abs/2302.13971). Mistral has a window (https://arxiv.org/abs/2310.06825), SmolLM3 layers without
positions. What reads and writes the keys that all such families share stands here too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sublayer import config
from sublayer.hub.families.parts import (
    ACTIVATION_NAMES,
    ACTIVATIONS,
    LayerRules,
    Names,
    decoder_family,
    decoder_only,
    read_windows,
    with_windows,
    write_windows,
)
from sublayer.hub.families.rope import read_rotary, write_rotary
from sublayer.hub.family import Family, Settings, Tree
from sublayer.hub.rules import Rule, affine, affine_joined

OLD_BUFFERS = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)
"""Frequencies that transformers before 4.32 stored; they follow from the config."""

# --- config: what all of them share ------------------------------------------------------------------------------


def read_attention(settings: Settings, **fields: Any) -> config.Attention:
    """Grouped attention by the usual keys; `fields` are what a family says otherwise."""
    common: dict[str, Any] = {
        "heads": settings.need("num_attention_heads"),
        "kv_heads": settings.get("num_key_value_heads"),
        "head_dim": settings.get("head_dim"),
        "bias": settings.get("attention_bias", False),
        "dropout": float(settings.get("attention_dropout", 0.0)),
    }
    return config.Attention(**(common | fields))


def read_gated(settings: Settings, **fields: Any) -> config.Gated:
    """The gated network by the usual keys."""
    common: dict[str, Any] = {
        "hidden": settings.need("intermediate_size"),
        "activation": settings.one_of("hidden_act", ACTIVATIONS, "silu"),
    }
    return config.Gated(**(common | fields))


def read_norm(settings: Settings, **fields: Any) -> config.RMSNorm:
    return config.RMSNorm(eps=float(settings.need("rms_norm_eps")), **fields)


def read_block(
    settings: Settings,
    attention: config.Attention | None = None,
    feed_forward: config.FeedForward | None = None,
    **fields: Any,
) -> config.Block:
    """A layer by the usual keys, pre-norm."""
    common: dict[str, Any] = {"norm": read_norm(settings), "norm_placement": "pre"}
    return config.Block(
        attention=attention or read_attention(settings),
        feed_forward=feed_forward or read_gated(settings),
        **(common | fields),
    )


def read_plain_rotary(settings: Settings, *, layer_type: str = "full_attention") -> config.Rotary:
    """Rotary positions of the whole head."""
    settings.only("partial_rotary_factor", 1.0)
    rotary = read_rotary(settings, layer_type=layer_type)
    if rotary.fraction != 1.0:
        raise settings.refusal("partial_rotary_factor", "supported: 1.0", rotary.fraction)
    return rotary


def _write_frame(tree: config.DecoderOnly) -> dict[str, Any] | None:
    """The keys that all of them share, from the first block; None where the tree has another form of parts."""
    block, position = tree.decoder.blocks[0], tree.decoder.position
    attention, norm = block.attention, block.norm
    if not isinstance(norm, config.RMSNorm) or not isinstance(position, config.Rotary):
        return None
    rotary = write_rotary(position)
    if rotary is None:
        return None
    part = block.feed_forward
    return {
        "hidden_size": tree.dim,
        "intermediate_size": part.hidden,
        "num_hidden_layers": tree.decoder.layers,
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.key_value_heads,
        "head_dim": attention.width(tree.dim),
        "hidden_act": ACTIVATION_NAMES[part.activation],
        "max_position_embeddings": tree.max_length,
        "rms_norm_eps": norm.eps,
        "attention_bias": attention.bias,
        "attention_dropout": attention.dropout,
        **rotary,
    }


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

LLAMA_DEFAULTS = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
MISTRAL_DEFAULTS = LLAMA_DEFAULTS | {
    "intermediate_size": 14_336,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
    "sliding_window": 4096,
}
SMOLLM3_DEFAULTS = LLAMA_DEFAULTS | {
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


def _read_llama(settings: Settings) -> Tree:
    block = read_block(settings, feed_forward=_gated_with_bias(settings))
    return decoder_only(settings, [block] * settings.need("num_hidden_layers"), read_plain_rotary(settings))


def _write_llama(tree: config.DecoderOnly, frame: dict[str, Any]) -> dict[str, Any]:
    return frame | {"mlp_bias": _mlp_bias(tree)}


def _read_mistral(settings: Settings) -> Tree:
    block = read_block(settings, read_attention(settings, bias=False, window=settings.get("sliding_window")))
    return decoder_only(settings, [block] * settings.need("num_hidden_layers"), read_plain_rotary(settings))


def _write_mistral(tree: config.DecoderOnly, frame: dict[str, Any]) -> dict[str, Any]:
    return frame | {"sliding_window": tree.decoder.blocks[0].attention.window}


def _read_smollm3(settings: Settings) -> Tree:
    settings.skip("max_window_layers")  # without effect: the layers with a window are those without positions
    layers, interval = settings.need("num_hidden_layers"), settings.need("no_rope_layer_interval")
    rotated = settings.get("no_rope_layers", [(layer + 1) % interval for layer in range(layers)])
    if len(rotated) != layers:
        raise settings.refusal("no_rope_layers", "supported: one for each layer")
    window = settings.get("sliding_window")
    narrow = settings.get("use_sliding_window", False) and window is not None
    windows = read_windows(settings, window, [narrow and not turns for turns in rotated])
    usual = read_block(settings, feed_forward=_gated_with_bias(settings))
    blocks = [
        block if turns else block.model_copy(update={"position": config.NoPosition()})
        for block, turns in zip(with_windows(usual, windows), rotated, strict=True)
    ]
    return decoder_only(settings, blocks, read_plain_rotary(settings))


def _write_smollm3(tree: config.DecoderOnly, frame: dict[str, Any]) -> dict[str, Any]:
    blocks = tree.decoder.blocks
    windows = write_windows(blocks)
    return frame | {
        "mlp_bias": _mlp_bias(tree),
        "no_rope_layers": [int(not isinstance(block.position, config.NoPosition)) for block in blocks],
        "use_sliding_window": windows["sliding_window"] is not None,
        **windows,
    }


def _gated_with_bias(settings: Settings) -> config.Gated:
    return read_gated(settings, bias=settings.get("mlp_bias", False))


def _mlp_bias(tree: config.DecoderOnly) -> bool:
    part = tree.decoder.blocks[0].feed_forward
    return isinstance(part, config.Gated) and part.bias


def llama_like(
    name: str,
    architecture: str,
    defaults: Mapping[str, Any],
    read: Callable[[Settings], Tree],
    write: Callable[[config.DecoderOnly, dict[str, Any]], dict[str, Any] | None] = lambda _, frame: frame,
    layer: LayerRules = layer_rules,
) -> Family:
    """A family whose settings and tensors are called as Llama's, but for what it says otherwise.

    Args:
        architecture: the class of its models. defaults: what its library takes where a key is missing.
        read: its config -> the tree. write: the tree and the keys that all share -> its config, or None where the
            family has no words for one of the parts. layer: the tensors of a layer.
    """

    def written(tree: config.DecoderOnly) -> dict[str, Any] | None:
        frame = _write_frame(tree)
        return None if frame is None else write(tree, frame)

    return decoder_family(name, architecture, defaults, read, written, NAMES, layer, ignored=OLD_BUFFERS)


LLAMA = llama_like("llama", "LlamaForCausalLM", LLAMA_DEFAULTS, _read_llama, _write_llama)
MISTRAL = llama_like("mistral", "MistralForCausalLM", MISTRAL_DEFAULTS, _read_mistral, _write_mistral)
SMOLLM3 = llama_like("smollm3", "SmolLM3ForCausalLM", SMOLLM3_DEFAULTS, _read_smollm3, _write_smollm3)
