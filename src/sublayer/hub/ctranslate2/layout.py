"""The one table of CTranslate2's models: the tensors of a tree, both ways, and its numbers (`tree.py` reads them).

Names are those of `python/ctranslate2/specs/transformer_spec.py`. Beside the tensors a file has numbers ("num_heads"),
with the defaults of `src/layers/`; every one is accounted for, as every tensor is. What `nearest` has not is not
expected here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sublayer import config
from sublayer.hub.ctranslate2.nearest import Expressible
from sublayer.hub.family import Family, Tree
from sublayer.hub.rules import Rule, joined, prefixed, same
from sublayer.nn.positions import build_position

ACTIVATIONS: dict[config.Activation, int] = {"relu": 0, "gelu_tanh": 1, "silu": 2, "gelu": 3, "tanh": 5}
LINEAR, LLAMA3 = 0, 2
"""Kinds of rotary scaling."""
NORMS: Mapping[config.NormPlacement, Mapping[str, str]] = {
    "pre": {
        "self_attention_sublayer.before": "self_attention/layer_norm",
        "cross_attention_sublayer.before": "attention/layer_norm",
        "feed_forward_sublayer.before": "ffn/layer_norm",
    },
    "post": {
        "self_attention_sublayer.outer": "self_attention/layer_norm",
        "cross_attention_sublayer.outer": "attention/layer_norm",
        "feed_forward_sublayer.outer": "ffn/layer_norm",
    },
    "sandwich": {
        "self_attention_sublayer.before": "input_layer_norm",
        "self_attention_sublayer.after": "post_attention_layer_norm",
        "feed_forward_sublayer.before": "pre_feedforward_layer_norm",
        "feed_forward_sublayer.after": "post_feedforward_layer_norm",
    },
    "parallel": {
        "self_attention_sublayer.before": "input_layer_norm",
        "feed_forward_sublayer.before": "post_attention_layer_norm",
    },
    "parallel-shared": {"shared_norm": "shared_layer_norm"},
}
"""Our norms of a layer, and theirs."""
SPECIFICATIONS = {"encoder-decoder": ("TransformerSpec", 7), "decoder-only": ("TransformerDecoderSpec", 8)}
"""What each kind of model is called, and the newest revision of that."""
TABLE = "position_encodings/encodings"
LEAST = 1024
"""Rows of a table that is computed, at least."""

# --- tensors -----------------------------------------------------------------------------------------------------


def rules(tree: Tree) -> list[Rule]:
    """Every tensor of a model, but for fixed tables; what is tied stands once."""
    assert isinstance(tree, Expressible)
    found = [same("decoder.embedding.tokens.weight", "decoder/embeddings/weight")]
    if isinstance(tree, config.EncoderDecoder) and tree.tied not in ("all", "embeddings"):
        found.append(same("encoder.embedding.tokens.weight", "encoder/embeddings_0/weight"))
    if not _output_is_tied(tree):
        found.append(same("output.weight", "decoder/projection/weight"))
    if tree.output_bias:
        found.append(same("output.bias", "decoder/projection/bias"))
    for side, (stack, cross) in tree.stacks.items():
        found += prefixed(f"{side}.", f"{side}/", _stack_rules(tree, stack, cross=cross))
    return found


def ties(tree: Tree) -> dict[str, str]:
    """The second names of tied tensors."""
    assert isinstance(tree, Expressible)
    table = "decoder/embeddings/weight"
    found = {"decoder/projection/weight": table} if _output_is_tied(tree) else {}
    if isinstance(tree, config.EncoderDecoder) and tree.tied in ("all", "embeddings"):
        found["encoder/embeddings_0/weight"] = table
    return found


def fixed(tree: Tree) -> dict[str, Tensor]:
    """The tables of positions that are not learned, [L, D] float64: without a table CTranslate2 would add another.

    They go on past the model's own length, for where a table ends CTranslate2 ends with an error, and who calls it
    (Argos) may not ask for less.
    """
    assert isinstance(tree, Expressible)
    found: dict[str, Tensor] = {}
    length = max(tree.max_length, LEAST)
    for side, (stack, _) in tree.stacks.items():
        match stack.position:
            case config.Sinusoidal():
                found[f"{side}/{TABLE}"] = sinusoids(stack.position, length, tree.dim)
            case config.NoPosition():
                found[f"{side}/{TABLE}"] = torch.zeros(length, tree.dim, dtype=torch.float64)
            case _:
                pass
    return found


def sinusoids(position: config.Sinusoidal, length: int, dim: int) -> Tensor:
    """Shape: [L, D] float64."""
    made = build_position(position, heads=1, dim=dim, head_dim=dim, max_length=length, bidirectional=True)
    table = made.lower(length).added
    assert table is not None
    return table


def _output_is_tied(tree: Expressible) -> bool:
    return tree.tied if isinstance(tree, config.DecoderOnly) else tree.tied in ("all", "target")


def _stack_rules(tree: Expressible, stack: config.Stack, *, cross: bool) -> list[Rule]:
    found: list[Rule] = []
    if isinstance(stack.position, config.Learned):
        found.append(same("position.weight", TABLE))
    if tree.embedding.norm is not None:
        found += _norm_rules("embedding.norm", "layernorm_embedding", tree.embedding.norm)
    if not stack.block.leaves_norm:
        found += _norm_rules("norm", "layer_norm", stack.block.norm)
    for index, block in enumerate(stack.blocks):
        found += prefixed(f"layers.{index}.", f"layer_{index}/", _layer_rules(block, cross=cross))
    return found


def _layer_rules(block: config.Block, *, cross: bool) -> list[Rule]:
    """Queries, keys and values are one matrix of theirs too, in the same order; of a gated part there are two."""
    found = _attention_rules("self_attention", block.attention, {"qkv": "linear_0", "output": "linear_1"})
    if cross:
        theirs = {"query": "linear_0", "key_value": "linear_1", "output": "linear_2"}
        found += _attention_rules("cross_attention", block.cross, theirs)
    part = block.feed_forward
    if isinstance(part, config.Gated):
        kinds = ("weight", "bias") if part.bias else ("weight",)
        found += [
            joined(
                f"feed_forward.gate_up.{kind}",
                [f"ffn/linear_0/{kind}", f"ffn/linear_0_noact/{kind}"],
                [part.hidden] * 2,
            )
            for kind in kinds
        ]
    else:
        found += _linear_rules("feed_forward.up", "ffn/linear_0", bias=_biased(part))
    found += _linear_rules("feed_forward.down", "ffn/linear_1", bias=_biased(part))
    for ours, theirs in NORMS[block.norm_placement].items():
        if cross or not ours.startswith("cross"):
            found += _norm_rules(ours, theirs, block.norm)
    return found


def _attention_rules(ours: str, attention: config.Attention, parts: Mapping[str, str]) -> list[Rule]:
    scope = "attention" if ours == "cross_attention" else ours
    found: list[Rule] = []
    for part, theirs in parts.items():
        bias = attention.biased_output if part == "output" else attention.bias
        found += _linear_rules(f"{ours}.{part}", f"{scope}/{theirs}", bias=bias)
    if attention.query_key_norm is not None:
        found += _norm_rules(f"{ours}.query_norm", f"{scope}/q_norm", attention.query_key_norm)
        found += _norm_rules(f"{ours}.key_norm", f"{scope}/k_norm", attention.query_key_norm)
    return found


def _linear_rules(ours: str, theirs: str, *, bias: bool) -> list[Rule]:
    return [same(f"{ours}.{kind}", f"{theirs}/{kind}") for kind in ("weight", "bias") if kind == "weight" or bias]


def _norm_rules(ours: str, theirs: str, norm: config.Norm) -> list[Rule]:
    """Without a shift it is an RMSNorm."""
    found = [same(f"{ours}.weight", f"{theirs}/gamma")]
    return [*found, same(f"{ours}.bias", f"{theirs}/beta")] if isinstance(norm, config.LayerNorm) else found


def _biased(part: config.FeedForward) -> bool:
    return isinstance(part, config.PositionWise | config.Gated) and part.bias


# --- numbers, out ------------------------------------------------------------------------------------------------


def numbers(tree: Expressible) -> dict[str, Tensor]:
    """Every number of a model, of rank 0, by its name."""
    found: dict[str, Tensor] = {}
    for side, (stack, cross) in tree.stacks.items():
        block = stack.blocks[0]
        found |= {
            f"{side}/num_heads": _int16(block.attention.heads),
            f"{side}/pre_norm": _int8(block.norm_placement != "post"),
            f"{side}/activation": _int8(ACTIVATIONS[block.feed_forward.activation]),
            f"{side}/scale_embeddings": _int8(tree.embedding.scale),
        }
        found |= _plus_one(tree, stack, side, cross=cross)
        for index, each in enumerate(stack.blocks):
            scope = f"{side}/layer_{index}"
            found |= _attention_numbers(f"{scope}/self_attention", each.attention, tree.dim)
            found |= _rotary_numbers(f"{scope}/self_attention", stack.position, each.attention.width(tree.dim))
            if cross:
                found |= _attention_numbers(f"{scope}/attention", each.cross, tree.dim)
    if isinstance(tree, config.EncoderDecoder):
        found["encoder/embeddings_merge"] = _int8(0)
        if tree.output_scale != 1.0:
            found["decoder/scale_outputs"] = _float(tree.output_scale)
    elif tree.logit_softcap is not None:
        found["decoder/final_logit_softcapping"] = _float(tree.logit_softcap)
    alibi = isinstance(tree.decoder.position, config.Alibi)
    return found | {
        # The attention that `return_attention` shows: the first head of the last layer.
        "decoder/alignment_layer": _int16(-1),
        "decoder/alignment_heads": _int16(1),
        "decoder/alibi": _int8(alibi),
        "decoder/alibi_use_positive_positions": _int8(False),
        "decoder/scale_alibi": _int8(False),
        "decoder/start_from_zero_embedding": _int8(False),
    }


def _attention_numbers(scope: str, attention: config.Attention, dim: int) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    width = attention.width(dim)
    if attention.scale is not None:
        found[f"{scope}/queries_scale"] = _float(attention.scale)
    if attention.key_value_heads != attention.heads:
        found[f"{scope}/num_heads_kv"] = _int32(attention.key_value_heads)
    if width * attention.heads != dim:
        found[f"{scope}/head_dim"] = _int32(width)
    return found


def _rotary_numbers(scope: str, position: config.Position, width: int) -> dict[str, Tensor]:
    if not isinstance(position, config.Rotary):
        return {}
    rotated = int(width * position.fraction)
    found = {
        f"{scope}/rotary_dim": _int32(0 if rotated == width else rotated),
        f"{scope}/rotary_interleave": _int8(position.layout == "interleaved"),
        f"{scope}/rotary_base": _float(position.base),
    }
    match position.scaling:
        case config.LinearScaling():
            found[f"{scope}/rotary_scaling_type"] = _int8(LINEAR)
            found[f"{scope}/rotary_scaling_factor"] = _float(position.scaling.factor)
        case config.Llama3Scaling():
            found |= {
                f"{scope}/rotary_scaling_type": _int8(LLAMA3),
                f"{scope}/rotary_scaling_factor": _float(position.scaling.factor),
                f"{scope}/rotary_low_freq_factor": _float(position.scaling.low_frequency_factor),
                f"{scope}/rotary_high_freq_factor": _float(position.scaling.high_frequency_factor),
                f"{scope}/original_max_position_embeddings": _int32(position.scaling.original_length),
            }
        case _:
            pass
    return found


def _plus_one(tree: Expressible, stack: config.Stack, side: str, *, cross: bool) -> dict[str, Tensor]:
    """A flag beside each RMSNorm whose scale is 1 + gamma."""

    def flag(norm: config.Norm | None) -> bool:
        return isinstance(norm, config.RMSNorm) and norm.plus_one

    scopes = [f"{side}/layernorm_embedding"] * flag(tree.embedding.norm)
    scopes += [f"{side}/layer_norm"] * (flag(stack.block.norm) and not stack.block.leaves_norm)
    for index, block in enumerate(stack.blocks):
        layer = f"{side}/layer_{index}"
        norms = NORMS[block.norm_placement].items() if flag(block.norm) else ()
        scopes += [f"{layer}/{theirs}" for ours, theirs in norms if cross or not ours.startswith("cross")]
        for name, attention in (("self_attention", block.attention), ("attention", block.cross)):
            if flag(attention.query_key_norm) and (cross or name == "self_attention"):
                scopes += [f"{layer}/{name}/q_norm", f"{layer}/{name}/k_norm"]
    return {f"{scope}/layer_norm_use_residual": _int8(True) for scope in scopes}


def _int8(value: int | bool) -> Tensor:
    return torch.tensor(int(value), dtype=torch.int8)


def _int16(value: int) -> Tensor:
    return torch.tensor(value, dtype=torch.int16)


def _int32(value: int) -> Tensor:
    return torch.tensor(value, dtype=torch.int32)


def _float(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float32)


def _in_the_file(_: Any) -> Any:
    raise AssertionError("the tree of a CTranslate2 model is read from its numbers and tensors, by read_tree")


FAMILY = Family(
    name="ctranslate2",
    read=_in_the_file,
    write=_in_the_file,
    rules=rules,
    ties=ties,
    older=((r"^encoder/embeddings/", "encoder/embeddings_0/"),),
    # Those that are not learned have been looked at by `read_tree`.
    ignored=(rf"(encoder|decoder)/{TABLE}",),
)
"""How its tensors are read."""
