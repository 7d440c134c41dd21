"""Llama and what is built like it: Mistral and SmolLM3.

Blocks of grouped attention with rotary positions and a gated network, each after an RMSNorm (Touvron et al. 2023,
https://arxiv.org/abs/2302.13971). Mistral has a window (https://arxiv.org/abs/2310.06825), SmolLM3 layers without
positions. What reads and writes the keys that all such families share stands here too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sublayer import config
from sublayer.hub.families.parts import (
    ACTIVATION_NAMES,
    ACTIVATIONS,
    causal_settings,
    decoder_only,
    read_windows,
    with_windows,
    write_windows,
)
from sublayer.hub.families.rope import read_rotary, write_rotary
from sublayer.hub.family import Family, Settings, Tree
from sublayer.hub.rules import Rule, affine, affine_joined, prefixed, same

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


def read_plain_rotary(settings: Settings, *, layer_type: str = "full_attention") -> config.Rotary:
    """Rotary positions of the whole head."""
    settings.only("partial_rotary_factor", 1.0)
    rotary = read_rotary(settings, layer_type=layer_type)
    if rotary.fraction != 1.0:
        raise settings.refusal("partial_rotary_factor", "supported: 1.0", rotary.fraction)
    return rotary


def write_frame(tree: Tree, name: str, architecture: str) -> dict[str, Any] | None:
    """The keys that all of them share, from the first block; None where the tree has another form of parts."""
    if not isinstance(tree, config.DecoderOnly):
        return None
    block, position = tree.decoder.blocks[0], tree.decoder.position
    attention, norm = block.attention, block.norm
    if not isinstance(norm, config.RMSNorm) or not isinstance(position, config.Rotary):
        return None
    rotary = write_rotary(position)
    if rotary is None:
        return None
    part = block.feed_forward
    return {
        "architectures": [architecture],
        "model_type": name,
        "vocab_size": tree.vocab_size,
        "hidden_size": tree.dim,
        "intermediate_size": part.hidden,
        "num_hidden_layers": tree.decoder.layers,
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.key_value_heads,
        "head_dim": attention.width(tree.dim),
        "hidden_act": ACTIVATION_NAMES[part.activation],
        "max_position_embeddings": tree.max_length,
        "rms_norm_eps": norm.eps,
        "tie_word_embeddings": tree.tied,
        "attention_bias": attention.bias,
        "attention_dropout": attention.dropout,
        **rotary,
    }


# --- tensors -----------------------------------------------------------------------------------------------------

LayerRules = Callable[[config.Block, int], Sequence[Rule]]


def model_rules(tree: Tree, layer: LayerRules) -> list[Rule]:
    """All tensors of such a model; `layer` gives those of a layer, in a model of width D, without prefixes."""
    assert isinstance(tree, config.DecoderOnly)
    found = [same("decoder.embedding.tokens.weight", "model.embed_tokens.weight")]
    found += affine("decoder.norm", "model.norm", bias=False)
    if not tree.tied:
        found += affine("output", "lm_head", bias=tree.output_bias)
    for index, block in enumerate(tree.decoder.blocks):
        found += prefixed(f"decoder.layers.{index}.", f"model.layers.{index}.", layer(block, tree.dim))
    return found


def tied_output(tree: Tree) -> dict[str, str]:
    """A checkpoint may hold the projection even where it is the embedding."""
    assert isinstance(tree, config.DecoderOnly)
    return {"lm_head.weight": "model.embed_tokens.weight"} if tree.tied else {}


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


def _read_llama(values: Mapping[str, Any]) -> Tree:
    settings = causal_settings(values, "llama", "LlamaForCausalLM", LLAMA_DEFAULTS)
    block = config.Block(
        attention=read_attention(settings),
        feed_forward=read_gated(settings, bias=settings.get("mlp_bias", False)),
        norm=read_norm(settings),
        norm_placement="pre",
    )
    return decoder_only(settings, [block] * settings.need("num_hidden_layers"), read_plain_rotary(settings))


def _write_llama(tree: Tree) -> dict[str, Any] | None:
    frame = write_frame(tree, "llama", "LlamaForCausalLM")
    return None if frame is None else frame | {"mlp_bias": _mlp_bias(tree)}


def _read_mistral(values: Mapping[str, Any]) -> Tree:
    settings = causal_settings(values, "mistral", "MistralForCausalLM", MISTRAL_DEFAULTS)
    block = config.Block(
        attention=read_attention(settings, bias=False, window=settings.get("sliding_window")),
        feed_forward=read_gated(settings),
        norm=read_norm(settings),
        norm_placement="pre",
    )
    return decoder_only(settings, [block] * settings.need("num_hidden_layers"), read_plain_rotary(settings))


def _write_mistral(tree: Tree) -> dict[str, Any] | None:
    frame = write_frame(tree, "mistral", "MistralForCausalLM")
    return None if frame is None else frame | {"sliding_window": blocks_of(tree)[0].attention.window}


def _read_smollm3(values: Mapping[str, Any]) -> Tree:
    settings = causal_settings(values, "smollm3", "SmolLM3ForCausalLM", SMOLLM3_DEFAULTS)
    settings.skip("max_window_layers")  # without effect: the layers with a window are those without positions
    layers, interval = settings.need("num_hidden_layers"), settings.need("no_rope_layer_interval")
    rotated = settings.get("no_rope_layers", [(layer + 1) % interval for layer in range(layers)])
    if len(rotated) != layers:
        raise settings.refusal("no_rope_layers", "supported: one for each layer")
    window = settings.get("sliding_window")
    narrow = settings.get("use_sliding_window", False) and window is not None
    windows = read_windows(settings, window, [narrow and not turns for turns in rotated])
    usual = config.Block(
        attention=read_attention(settings),
        feed_forward=read_gated(settings, bias=settings.get("mlp_bias", False)),
        norm=read_norm(settings),
        norm_placement="pre",
    )
    blocks = [
        block if turns else block.model_copy(update={"position": config.NoPosition()})
        for block, turns in zip(with_windows(usual, windows), rotated, strict=True)
    ]
    return decoder_only(settings, blocks, read_plain_rotary(settings))


def _write_smollm3(tree: Tree) -> dict[str, Any] | None:
    frame = write_frame(tree, "smollm3", "SmolLM3ForCausalLM")
    if frame is None:
        return None
    blocks = blocks_of(tree)
    windows = write_windows(blocks)
    return frame | {
        "mlp_bias": _mlp_bias(tree),
        "no_rope_layers": [int(not isinstance(block.position, config.NoPosition)) for block in blocks],
        "use_sliding_window": windows["sliding_window"] is not None,
        **windows,
    }


def blocks_of(tree: Tree) -> tuple[config.Block, ...]:
    """The blocks of a decoder-only tree."""
    assert isinstance(tree, config.DecoderOnly)
    return tree.decoder.blocks


def _mlp_bias(tree: Tree) -> bool:
    part = blocks_of(tree)[0].feed_forward
    return isinstance(part, config.Gated) and part.bias


def llama_like(
    name: str,
    read: Callable[[Mapping[str, Any]], Tree],
    write: Callable[[Tree], dict[str, Any] | None],
    layer: LayerRules = layer_rules,
) -> Family:
    """A family whose tensors are named as Llama's, but for what `layer` says of a layer's."""
    return Family(
        name=name,
        read=read,
        write=write,
        rules=lambda tree: model_rules(tree, layer),
        ties=tied_output,
        ignored=OLD_BUFFERS,
    )


LLAMA = llama_like("llama", _read_llama, _write_llama)
MISTRAL = llama_like("mistral", _read_mistral, _write_mistral)
SMOLLM3 = llama_like("smollm3", _read_smollm3, _write_smollm3)
