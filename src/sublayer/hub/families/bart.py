"""The encoder-decoders that came out of fairseq and Marian: BART, mBART, Pegasus, Marian, M2M100.

The Transformer of the paper with biases everywhere, and the same names for all. They differ in where the norms stand,
in the positions, in a norm on the embeddings, and in a bias on the logits: a `Form` says which has what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sublayer import config
from sublayer.hub.families.heads import apart_rules, norm_rules
from sublayer.hub.families.parts import ACTIVATION_NAMES, ACTIVATIONS
from sublayer.hub.family import Family, Settings, Tree
from sublayer.hub.keys import Key, both, defaults_of, read_keys, write_keys
from sublayer.hub.rules import Rule, affine, affine_joined, numbered, prefixed, reshaped, same

NORM = config.LayerNorm(eps=1e-5)
OFFSET = 2
"""Rows of fairseq's tables of positions before that of the first token."""
TRAINING = """
    add_bias_logits classif_dropout classifier_dropout decoder_layerdrop encoder_layerdrop extra_pos_embeddings
    force_bos_token_to_be_generated init_std num_hidden_layers
""".split()  # noqa: SIM905
"""Keys of this family that say how it was trained or converted, or repeat others."""


SIDE = (
    ("layers", "layers", 12),
    ("attention_heads", "block.attention.heads", 16),
    ("ffn_dim", "block.feed_forward.hidden", 4096),
)
KEYS = (
    Key("vocab_size", "vocab_size", 50_265),
    Key("d_model", "dim", 1024),
    Key("max_position_embeddings", "max_length", 1024),
    *(
        Key(f"{side}_{name}", f"{side}.{place}", usual)
        for side in ("encoder", "decoder")
        for name, place, usual in SIDE
    ),
    Key("activation_function", both("block.feed_forward.activation"), "gelu", ACTIVATIONS, ACTIVATION_NAMES),
    Key("dropout", f"{both('block.dropout')} embedding.dropout", 0.1),
    Key("attention_dropout", both("block.attention.dropout"), 0.0),
    Key("activation_dropout", both("block.feed_forward.dropout"), 0.0),
    Key("scale_embedding", "embedding.scale", False),
)


@dataclass(frozen=True)
class Form:
    """What sets one of them apart.

    name: `model_type`. architecture: its class. norm_placement: "post" or "pre"; with "pre" there is a last norm.
    position: "learned" has the offset of fairseq; "counted" are sinusoids that count from past the padding's number.
    embedding_norm, logits_bias: whether there is one. table: whether fixed tables of positions are stored.
    defaults: what its config has where a key is missing, where that is another.
    """

    name: str
    architecture: str
    norm_placement: Literal["post", "pre"] = "pre"
    position: Literal["learned", "sinusoidal", "counted"] = "sinusoidal"
    embedding_norm: bool = False
    logits_bias: bool = True
    table: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])


# --- config ------------------------------------------------------------------------------------------------------


def _read(values: Mapping[str, Any], *, form: Form) -> Tree:
    settings = Settings(values, form.name, {**defaults_of(KEYS), "pad_token_id": 1, **form.defaults})
    _require(settings, form)
    block = {"feed_forward": {"type": "position-wise"}, "norm": NORM, "norm_placement": form.norm_placement}
    stack = {"block": block, "position": _read_position(settings, form)}
    embedding = {"norm": NORM if form.embedding_norm else None}
    tree = {"embedding": embedding, "output_bias": form.logits_bias, "encoder": stack, "decoder": stack}
    tree = read_keys(settings, KEYS, tree)
    settings.finish()
    return config.EncoderDecoder.model_validate(tree)


def _require(settings: Settings, form: Form) -> None:
    """Refuse what another class reads, and what old configs say otherwise than this form has it."""
    base = form.architecture.replace("MTModel", "Model").replace("ForConditionalGeneration", "Model")
    settings.only_class(form.architecture, base)
    settings.only("is_encoder_decoder", True)
    settings.only("is_decoder", False)
    settings.only("tie_word_embeddings", True)
    settings.only("share_encoder_decoder_embeddings", True)
    settings.only("decoder_vocab_size", settings.need("vocab_size"))
    settings.only("normalize_before", form.norm_placement == "pre")
    settings.only("add_final_layer_norm", form.norm_placement == "pre")
    settings.only("normalize_embedding", form.embedding_norm)
    settings.only("static_position_embeddings", form.position != "learned")
    settings.only("do_blenderbot_90_layernorm", False)
    settings.skip(*TRAINING)


def _read_position(settings: Settings, form: Form) -> config.Position:
    match form.position:
        case "learned":
            return config.Learned(offset=OFFSET)
        case "sinusoidal":
            return config.Sinusoidal(layout="halves")
        case "counted":
            return config.Sinusoidal(layout="halves", spacing="inclusive", offset=settings.need("pad_token_id") + 1)


def _write(tree: Tree, *, form: Form) -> dict[str, Any] | None:
    if not isinstance(tree, config.EncoderDecoder):
        return None
    found = write_keys(tree, KEYS) | {
        "architectures": [form.architecture],
        "model_type": form.name,
        "is_encoder_decoder": True,
        "tie_word_embeddings": True,
    }
    if form.name == "marian":
        found |= {"decoder_vocab_size": tree.vocab_size, "share_encoder_decoder_embeddings": True}
    position = tree.encoder.position
    if form.position == "counted" and isinstance(position, config.Sinusoidal) and position.offset:
        found["pad_token_id"] = position.offset - 1
    return found


def _settle(tree: Tree, names: set[str]) -> Tree:
    """A bias on the logits that a checkpoint leaves out is none: base models have it not."""
    return tree if "final_logits_bias" in names else tree.model_copy(update={"output_bias": False})


# --- tensors -----------------------------------------------------------------------------------------------------


def _rules(tree: Tree) -> list[Rule]:
    assert isinstance(tree, config.EncoderDecoder)
    found = [same("encoder.embedding.tokens.weight", "model.shared.weight")]
    if tree.output_bias:
        found.append(reshaped("output.bias", "final_logits_bias", [tree.vocab_size], [1, tree.vocab_size]))
    for side, stack in (("encoder", tree.encoder), ("decoder", tree.decoder)):
        found += prefixed(f"{side}.", f"model.{side}.", _stack_rules(tree, stack, cross=side == "decoder"))
    return found


def _stack_rules(tree: config.EncoderDecoder, stack: config.Stack, *, cross: bool) -> list[Rule]:
    found: list[Rule] = []
    if isinstance(stack.position, config.Learned):
        found.append(same("position.weight", "embed_positions.weight"))
    if tree.embedding.norm is not None:
        found += norm_rules("embedding.norm", "layernorm_embedding", tree.embedding.norm)
    if stack.block.norm_placement == "pre":
        found += norm_rules("norm", "layer_norm", stack.block.norm)
    layers = (_layer_rules(block, tree.dim, cross=cross) for block in stack.blocks)
    return [*found, *numbered("layers.{}.", "layers.{}.", layers)]


def _layer_rules(block: config.Block, dim: int, *, cross: bool) -> list[Rule]:
    """[D, D] of queries, keys and values are one matrix of ours, [3 D, D]; in cross-attention [D, D] and [2 D, D]."""
    norm = "outer" if block.norm_placement == "post" else "before"
    qkv, norms = [f"self_attn.{name}_proj" for name in "qkv"], ("self_attn_layer_norm", "final_layer_norm")
    found = apart_rules(block, dim, qkv, "self_attn.out_proj", norms[0], "fc1", "fc2", norms[1])
    if cross:
        keys_values = [f"encoder_attn.{name}_proj" for name in "kv"]
        found += [
            *affine("cross_attention.query", "encoder_attn.q_proj"),
            *affine_joined("cross_attention.key_value", keys_values, [dim] * 2),
            *affine("cross_attention.output", "encoder_attn.out_proj"),
            *norm_rules(f"cross_attention_sublayer.{norm}", "encoder_attn_layer_norm", block.norm),
        ]
    return found


def _ties(_: Tree) -> dict[str, str]:
    others = ("lm_head", "model.encoder.embed_tokens", "model.decoder.embed_tokens")
    return {f"{name}.weight": "model.shared.weight" for name in others}


def _tables(tree: Tree) -> dict[str, Tensor]:
    """The sinusoids [L, D] that Pegasus stores, by the operations of its library, so that every bit is its own."""
    assert isinstance(tree, config.EncoderDecoder)
    dimension = np.arange(tree.dim)
    angle = np.arange(tree.max_length)[:, None] / np.power(10_000, 2 * (dimension // 2) / tree.dim)
    table = torch.from_numpy(np.concatenate((np.sin(angle[:, 0::2]), np.cos(angle[:, 1::2])), axis=1))
    return {f"model.{side}.embed_positions.weight": table for side in ("encoder", "decoder")}


def _family(form: Form) -> Family:
    ignored: Sequence[str] = (r"(model\.)?(encoder|decoder)\.version",)
    if form.position != "learned" and not form.table:
        ignored = (*ignored, r"(model\.)?(encoder|decoder)\.embed_positions\.weights?")
    return Family(
        name=form.name,
        read=partial(_read, form=form),
        write=partial(_write, form=form),
        rules=_rules,
        ties=_ties,
        older=((r"^(shared|encoder|decoder)\.", r"model.\1."),),
        ignored=tuple(ignored),
        settle=_settle if form.logits_bias else None,
        fixed=_tables if form.table else lambda _: {},
    )


BART = _family(Form("bart", "BartForConditionalGeneration", "post", "learned", embedding_norm=True))
MBART = _family(Form("mbart", "MBartForConditionalGeneration", "pre", "learned", embedding_norm=True))
PEGASUS = _family(Form("pegasus", "PegasusForConditionalGeneration", table=True, defaults={"pad_token_id": 0}))
MARIAN = _family(Form("marian", "MarianMTModel", "post", defaults={"vocab_size": 58_101, "pad_token_id": 58_100}))
M2M100 = _family(
    Form(
        "m2m_100",
        "M2M100ForConditionalGeneration",
        position="counted",
        logits_bias=False,
        defaults={
            "vocab_size": 128_112,
            "activation_function": "relu",
            "attention_dropout": 0.1,
            "scale_embedding": True,
        },
    )
)
