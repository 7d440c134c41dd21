"""T5 (Raffel et al. 2020, https://arxiv.org/abs/1910.10683), its version 1.1, and Flan-T5.

Pre-norm without biases, norms that only scale, scores that are not divided by sqrt(d), and a relative bias in each
stack, which the first layer's attention keeps and all layers use. Version 1.0 has one matrix for both embeddings and
the projection, and multiplies by D ** -0.5 before it; 1.1 has a projection of its own and a gated network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sublayer import config
from sublayer.hub.families.parts import ACTIVATIONS, OLD_ACTIVATION_NAMES
from sublayer.hub.family import Family, Settings, Tree
from sublayer.hub.keys import Key, both, defaults_of, read_keys, write_keys
from sublayer.hub.rules import Rule, affine, affine_joined, numbered, prefixed, same

KEYS = (
    Key("vocab_size", "vocab_size", 32_128),
    Key("d_model", "dim", 512),
    Key("d_kv", both("block.attention.head_dim"), 64),
    Key("d_ff", both("block.feed_forward.hidden"), 2048),
    Key("num_layers", both("layers"), 6),
    Key("num_decoder_layers", "decoder.layers"),
    Key("num_heads", both("block.attention.heads"), 8),
    Key("relative_attention_num_buckets", both("position.buckets"), 32),
    Key("relative_attention_max_distance", both("position.max_distance"), 128),
    Key(
        "dropout_rate",
        f"{both('block.dropout')} {both('block.attention.dropout')} {both('block.feed_forward.dropout')}"
        " embedding.dropout",
        0.1,
    ),
    Key("layer_norm_epsilon", both("block.norm.eps"), 1e-6),
    Key("n_positions", "max_length", 512),
)
STACK: dict[str, Any] = {
    "block": {
        "attention": {"scale": 1.0, "bias": False},
        "feed_forward": {"bias": False},
        "norm": {"type": "rms"},
        "norm_placement": "pre",
    },
    "position": {"type": "relative"},
}
FORM = {"embedding": {"scale": False}, "encoder": STACK, "decoder": STACK}

# --- config ------------------------------------------------------------------------------------------------------


def _read(values: Mapping[str, Any]) -> Tree:
    settings = Settings(values, "t5", {**defaults_of(KEYS), "feed_forward_proj": "relu"})
    settings.only_class("T5ForConditionalGeneration", "T5WithLMHeadModel")
    settings.only("is_encoder_decoder", True)
    settings.only("is_decoder", False)
    # Of another head; what follows from feed_forward_proj.
    settings.skip("classifier_dropout", "dense_act_fn", "is_gated_act")
    tree = read_keys(settings, KEYS, FORM)
    for side in ("encoder", "decoder"):
        tree[side]["block"]["feed_forward"] |= _read_feed_forward(settings)
    # Whether the output is scaled has a key of its own since transformers 5; before, it was scaled where it was tied.
    tied = settings.get("tie_word_embeddings", True)
    tree["tied"] = "all" if tied else "embeddings"
    tree["output_scale"] = tree["dim"] ** -0.5 if settings.get("scale_decoder_outputs", tied) else 1.0
    settings.finish()
    return config.EncoderDecoder.model_validate(tree)


def _read_feed_forward(settings: Settings) -> dict[str, str]:
    written = str(settings.need("feed_forward_proj"))
    gate, _, name = written.rpartition("-")
    # What T5 calls a gated gelu is the approximate one.
    name = "gelu_new" if written == "gated-gelu" else name
    if gate not in ("", "gated") or name not in ACTIVATIONS:
        raise settings.refusal("feed_forward_proj", "supported: relu, gated-gelu, and the like", written)
    return {"type": "gated" if gate else "position-wise", "activation": ACTIVATIONS[name]}


def _write(tree: Tree) -> dict[str, Any] | None:
    if not isinstance(tree, config.EncoderDecoder):
        return None
    part = tree.encoder.blocks[0].feed_forward
    name = OLD_ACTIVATION_NAMES[part.activation]
    if isinstance(part, config.Gated):
        name = "gated-gelu" if part.activation == "gelu_tanh" else f"gated-{name}"
    return write_keys(tree, KEYS) | {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "d_kv": tree.encoder.blocks[0].attention.width(tree.dim),
        "feed_forward_proj": name,
        "tie_word_embeddings": tree.tied == "all",
        "scale_decoder_outputs": tree.output_scale != 1.0,
    }


def _settle(tree: Tree, names: set[str]) -> Tree:
    """Where the output is not scaled, configs of transformers 5 say "tied" either way: the tensors know."""
    assert isinstance(tree, config.EncoderDecoder)
    if tree.output_scale != 1.0:
        return tree
    return tree.model_copy(update={"tied": "embeddings" if "lm_head.weight" in names else "all"})


# --- tensors -----------------------------------------------------------------------------------------------------


def _rules(tree: Tree) -> list[Rule]:
    assert isinstance(tree, config.EncoderDecoder)
    found = [same("encoder.embedding.tokens.weight", "shared.weight")]
    if tree.tied != "all":
        found.append(same("output.weight", "lm_head.weight"))
    bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    for side, stack in (("encoder", tree.encoder), ("decoder", tree.decoder)):
        rules = [same("position.weight", bias), same("norm.weight", "final_layer_norm.weight")]
        layers = (_layer_rules(block, tree.dim, cross=side == "decoder") for block in stack.blocks)
        rules += numbered("layers.{}.", "block.{}.layer.", layers)
        found += prefixed(f"{side}.", f"{side}.", rules)
    return found


def _layer_rules(block: config.Block, dim: int, *, cross: bool) -> list[Rule]:
    """[H d, D] of queries, keys and values are one matrix of ours, [3 H d, D]; gate and up, [F, D] each, [2 F, D]."""
    size = block.attention.heads * block.attention.width(dim)
    found = [
        *affine_joined("self_attention.qkv", [f"0.SelfAttention.{name}" for name in "qkv"], [size] * 3, bias=False),
        same("self_attention.output.weight", "0.SelfAttention.o.weight"),
        same("self_attention_sublayer.before.weight", "0.layer_norm.weight"),
    ]
    last = 1
    if cross:
        last = 2
        keys_values = [f"1.EncDecAttention.{name}" for name in "kv"]
        found += [
            same("cross_attention.query.weight", "1.EncDecAttention.q.weight"),
            *affine_joined("cross_attention.key_value", keys_values, [size] * 2, bias=False),
            same("cross_attention.output.weight", "1.EncDecAttention.o.weight"),
            same("cross_attention_sublayer.before.weight", "1.layer_norm.weight"),
        ]
    theirs, part = f"{last}.DenseReluDense", block.feed_forward
    if isinstance(part, config.Gated):
        gate_up = [f"{theirs}.wi_0", f"{theirs}.wi_1"]
        found += affine_joined("feed_forward.gate_up", gate_up, [part.hidden] * 2, bias=False)
    else:
        found += affine("feed_forward.up", f"{theirs}.wi", bias=False)
    found += affine("feed_forward.down", f"{theirs}.wo", bias=False)
    found.append(same("feed_forward_sublayer.before.weight", f"{last}.layer_norm.weight"))
    return found


def _ties(tree: Tree) -> dict[str, str]:
    assert isinstance(tree, config.EncoderDecoder)
    others = ["encoder.embed_tokens", "decoder.embed_tokens", *(["lm_head"] if tree.tied == "all" else [])]
    return {f"{name}.weight": "shared.weight" for name in others}


T5 = Family(
    name="t5",
    read=_read,
    write=_write,
    rules=_rules,
    ties=_ties,
    settle=_settle,
    # The first checkpoints have a bias in cross-attention, which no code has ever used.
    ignored=(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
)
