"""The one table of CTranslate2's models, both ways: the numbers and tensors of a tree, and the tree of those.

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
from sublayer.errors import CheckpointError
from sublayer.hub.canonical import stack_of
from sublayer.hub.ctranslate2.model_bin import ModelBin
from sublayer.hub.ctranslate2.nearest import Expressible
from sublayer.hub.family import Family, Tree
from sublayer.hub.rules import Rule, joined, prefixed, same
from sublayer.nn.positions import build_position

ACTIVATIONS: Mapping[config.Activation, int] = {"relu": 0, "gelu_tanh": 1, "silu": 2, "gelu": 3, "tanh": 5}
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
FLAGS = ("with_source_bos", "with_source_eos", "with_target_bos", "user_decoder_start_tokens")
"""What stood in the binary before config.json had it."""
LEAST = 1024
"""Rows of a table that is computed, at least."""
LONGEST = 2048
"""Positions of a model whose file says none: those that its sines or its rotation can compute."""

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
    table = build_position(position, heads=1, dim=dim, head_dim=dim, max_length=length, bidirectional=True).added_table()
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
            joined(f"feed_forward.gate_up.{kind}", [f"ffn/linear_0/{kind}", f"ffn/linear_0_noact/{kind}"], [part.hidden] * 2)
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


# --- the tree, in ------------------------------------------------------------------------------------------------


def read_tree(model: ModelBin, settings: Mapping[str, Any]) -> Expressible:
    """The tree of a file.

    Args:
        settings: config.json; "layer_norm_epsilon" and "max_length" are read.

    Raises:
        CheckpointError: the file has a number that is not known, or of a part that sublayer does not have.
    """
    return _Found(model, settings).tree()


class _Found:
    """What a file says; each number that is asked for is known."""

    def __init__(self, model: ModelBin, settings: Mapping[str, Any]) -> None:
        self.model, self.settings = model, settings
        self.names = model.headers
        self.numbers = dict(model.numbers)
        # Before revision 5 both sides had the same, and it stood once.
        for name in ("num_heads", "pre_norm", "activation", "embeddings_merge", "alignment_layer", "alignment_heads"):
            if name in self.numbers:
                value = self.numbers.pop(name)
                for side in ("encoder", "decoder"):
                    self.numbers.setdefault(f"{side}/{name}", value)
        # Before version 6 of the binary they said what config.json says now (`reading.settings_of`).
        self.seen = set(FLAGS)

    def tree(self) -> Expressible:
        self._only("decoder/start_from_zero_embedding", 0)
        self._skip("decoder/alignment_layer", "decoder/alignment_heads", "encoder/alignment_layer")
        self._skip("encoder/alignment_heads", "decoder/embeddings_merge", "encoder/embeddings_merge")
        rows, dim = self._shape("decoder/embeddings/weight")
        scaled = self._scaled("decoder", dim)
        common = {
            "dim": dim,
            "vocab_size": rows,
            "output_bias": "decoder/projection/bias" in self.names,
            "embedding": config.Embedding(scale=scaled, norm=self._norm("decoder/layernorm_embedding")),
        }
        stacks = {"decoder": self._stack("decoder", dim)}
        if self.model.specification == "TransformerDecoderSpec":
            cap = self._number("decoder/final_logit_softcapping", 0.0)
            tree = config.DecoderOnly(
                tied=self._same("decoder/projection/weight", "decoder/embeddings/weight"),
                logit_softcap=cap or None,
                max_length=self._length(stacks),
                **stacks,
                **common,
            )
        else:
            stacks["encoder"] = self._stack("encoder", dim)
            tree = config.EncoderDecoder(
                tied=self._tied(dim),
                output_scale=self._number("decoder/scale_outputs", 1.0),
                max_length=self._length(stacks),
                **stacks,
                **common,
            )
            if self._scaled("encoder", dim) != scaled or self._norm("encoder/layernorm_embedding") != common["embedding"].norm:
                raise self._refusal("its two embeddings are scaled or normalized differently")
        left = [f"{name} = {value:g}" for name, value in self.numbers.items() if name not in self.seen and value]
        if left:
            raise self._refusal(f"it has {', '.join(left[:10])}, which sublayer does not know")
        return tree

    def _tied(self, dim: int) -> config.Tied:
        source = self._source_name
        if self._shape(source) != self._shape("decoder/embeddings/weight"):
            rows, width = self._shape(source)
            raise self._refusal(
                f"its source vocabulary has {rows:,} tokens of width {width}, and its target vocabulary"
                f" {self._shape('decoder/embeddings/weight')[0]:,} of width {dim}; sublayer has one for both"
            )
        source_is_target = self._same(source, "decoder/embeddings/weight")
        output_is_target = self._same("decoder/projection/weight", "decoder/embeddings/weight")
        if source_is_target:
            return "all" if output_is_target else "embeddings"
        return "target" if output_is_target else "none"

    @property
    def _source_name(self) -> str:
        # Before there could be several embeddings, the one had no number.
        return next(
            (name for name in ("encoder/embeddings_0/weight", "encoder/embeddings/weight") if name in self.names),
            "encoder/embeddings_0/weight",
        )

    def _same(self, one: str, other: str) -> bool:
        self._shape(one)
        return self.model.original(one) == self.model.original(other)

    def _stack(self, side: str, dim: int) -> config.Stack:
        blocks: list[config.Block] = []
        positions: list[config.Position] = []
        while any(name.startswith(f"{side}/layer_{len(blocks)}/") for name in self.names):
            scope = f"{side}/layer_{len(blocks)}"
            blocks.append(self._block(scope, side, dim))
            positions.append(self._rotary(scope, blocks[-1].attention.width(dim)) or self._added(side, dim))
        if not blocks:
            raise self._refusal(f"it has no layers: {side}/layer_0 is missing")
        last = self._norm(f"{side}/layer_norm")
        if last is not None and last != blocks[0].norm:
            raise self._refusal(f"the norm after the layers of its {side} is of another kind than theirs")
        if any(position != positions[0] for position in positions):
            raise self._refusal(f"the layers of its {side} have different positions")
        return stack_of(blocks, positions[0])

    def _block(self, scope: str, side: str, dim: int) -> config.Block:
        placement, norm = self._placement(scope, side)
        heads = int(self._number(f"{side}/num_heads", 8))
        number = int(self._number(f"{side}/activation", 0))
        activation = next((name for name, value in ACTIVATIONS.items() if value == number), None)
        if activation is None:
            raise self._refusal(f"{side}/activation = {number}, which sublayer does not have")
        crosses = f"{scope}/attention/linear_0/weight" in self.names
        hidden = self._shape(f"{scope}/ffn/linear_0/weight")[0]
        bias = f"{scope}/ffn/linear_1/bias" in self.names
        gated = f"{scope}/ffn/linear_0_noact/weight" in self.names
        part = config.Gated if gated else config.PositionWise
        attention = self._attention(f"{scope}/self_attention", heads, dim, "linear_0", "linear_1")
        cross = self._attention(f"{scope}/attention", heads, dim, "linear_0", "linear_2") if crosses else None
        self._only(f"{scope}/layer_scalar", 1)
        return config.Block(
            attention=attention,
            cross_attention=None if cross == attention else cross,
            feed_forward=part(hidden=hidden, activation=activation, bias=bias),
            norm=norm,
            norm_placement=placement,
        )

    def _placement(self, scope: str, side: str) -> tuple[config.NormPlacement, config.Norm]:
        pre = bool(self._number(f"{side}/pre_norm", 1))
        for placement in ("sandwich", "parallel", "parallel-shared", "pre", "post"):
            there = NORMS[placement].values()
            norms = [self._norm(f"{scope}/{name}") for name in there]
            found = [norm for norm in norms if norm is not None]
            needed = len(there) - sum(name.startswith("attention/") for name in there)
            if len(found) >= needed and (placement not in ("pre", "post") or pre == (placement == "pre")):
                if any(norm != found[0] for norm in found):
                    raise self._refusal(f"the norms of {scope} are of several kinds")
                return placement, found[0]
        raise self._refusal(f"the norms of {scope} stand in no known order")

    def _attention(self, scope: str, heads: int, dim: int, first: str, last: str) -> config.Attention:
        width = int(self._number(f"{scope}/head_dim", dim // heads))
        groups = int(self._number(f"{scope}/num_heads_kv", heads))
        if self._number(f"{scope}/multi_query", 0):
            groups = 1
        scale = self._number(f"{scope}/queries_scale", 0.0)
        bias, output = f"{scope}/{first}/bias" in self.names, f"{scope}/{last}/bias" in self.names
        return config.Attention(
            heads=heads,
            kv_heads=None if groups == heads else groups,
            head_dim=None if width * heads == dim else width,
            scale=scale or None,
            query_key_norm=self._norm(f"{scope}/q_norm"),
            bias=bias,
            output_bias=None if output == bias else output,
        )

    def _norm(self, scope: str) -> config.Norm | None:
        residual = bool(self._number(f"{scope}/layer_norm_use_residual", 0))
        if f"{scope}/gamma" not in self.names:
            return None
        eps = self.settings.get("layer_norm_epsilon")
        if f"{scope}/beta" in self.names:
            return config.LayerNorm(eps=1e-5 if eps is None else float(eps))
        return config.RMSNorm(eps=1e-6 if eps is None else float(eps), plus_one=residual)

    # --- positions

    def _length(self, stacks: Mapping[str, config.Stack]) -> int:
        """A learned table has as many rows as there are positions; of others config.json says how many count."""
        rows = {side: self._rows(side) for side in stacks}
        learned = [rows[side] for side, stack in stacks.items() if isinstance(stack.position, config.Learned)]
        if learned:
            return min(filter(None, learned))
        return min(self.settings.get("max_length") or LONGEST, *(count for count in rows.values() if count), 2**24)

    def _rows(self, side: str) -> int:
        """Of the table of positions; 0 where there is none."""
        header = self.names.get(f"{side}/{TABLE}")
        return 0 if header is None else header.shape[0]

    def _added(self, side: str, dim: int) -> config.Position:
        """What is added to the embeddings of a side: a table is looked at, to see whether it is one of sines."""
        if self._number("decoder/alibi", 0) and side == "decoder":
            self._skip("decoder/alibi_use_positive_positions")  # a shift of all scores alike
            self._only("decoder/scale_alibi", 0)
            return config.Alibi()
        self._skip("decoder/alibi_use_positive_positions", "decoder/scale_alibi")
        if f"{side}/{TABLE}" not in self.names:
            # What CTranslate2 computes where there is no table.
            return config.Sinusoidal(layout="halves", spacing="inclusive", offset=1)
        table = self.model.tensor(f"{side}/{TABLE}")
        if table.shape[1:] != (dim,):
            raise self._refusal(f"{side}/{TABLE} is of the shape {list(table.shape)}")
        if not table.any():
            return config.NoPosition()
        for position in KNOWN_SINUSOIDS:
            if dim % 2 == 0 and agree(table, sinusoids(position, len(table), dim)):
                return position
        return config.Learned()

    def _rotary(self, scope: str, width: int) -> config.Rotary | None:
        scope = f"{scope}/self_attention"
        rotated = int(self._number(f"{scope}/rotary_dim", -1))
        interleaved = bool(self._number(f"{scope}/rotary_interleave", 1))
        base = self._number(f"{scope}/rotary_base", 10_000.0)
        kind = int(self._number(f"{scope}/rotary_scaling_type", -1))
        factor = self._number(f"{scope}/rotary_scaling_factor", 1.0)
        low = self._number(f"{scope}/rotary_low_freq_factor", 1.0)
        high = self._number(f"{scope}/rotary_high_freq_factor", 4.0)
        length = int(self._number(f"{scope}/original_max_position_embeddings", 0))
        self._skip(f"{scope}/max_position_embeddings")  # read with scaling 1 only, which is refused
        if rotated < 0:
            return None
        scaling: config.RotaryScaling = config.Unscaled()
        if kind == LINEAR:
            scaling = config.LinearScaling(factor=factor)
        elif kind == LLAMA3:
            scaling = config.Llama3Scaling(
                factor=factor, original_length=length, low_frequency_factor=low, high_frequency_factor=high
            )
        elif kind != -1:
            raise self._refusal(f"{scope}/rotary_scaling_type = {kind}, which sublayer does not have")
        return config.Rotary(
            base=base,
            fraction=1.0 if rotated in (0, width) else rotated / width,
            layout="interleaved" if interleaved else "halves",
            scaling=scaling,
        )

    # --- one by one

    def _scaled(self, side: str, dim: int) -> bool:
        """Embeddings times the root of their width; a number that says another factor is refused."""
        named = [f"{side}/scale_embeddings", f"{side}/embeddings/multiply_by_sqrt_depth"]
        name = next((each for each in named if each in self.numbers), named[0])
        factor = self._number(name, 1)
        whole = not isinstance(self.numbers.get(name, 1), float)
        if whole or abs(factor - dim**0.5) < 1e-5 * factor:
            return bool(factor)
        if factor == 1.0:
            return False
        raise self._refusal(f"{name} = {factor:g}, and sublayer has the root of the width ({dim**0.5:g}) or none")

    def _number(self, name: str, otherwise: Any) -> Any:
        self.seen.add(name)
        return self.numbers.get(name, otherwise)

    def _skip(self, *names: str) -> None:
        self.seen.update(names)

    def _only(self, name: str, value: float) -> None:
        if self._number(name, value) != value:
            raise self._refusal(f"{name} = {self.numbers[name]:g}, which sublayer does not have")

    def _shape(self, name: str) -> tuple[int, int]:
        header = self.names.get(name)
        if header is None or len(header.shape) != 2:
            raise self._refusal(f"it has no matrix {name}")
        return header.shape[0], header.shape[1]

    def _refusal(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.model.name} cannot be read: {what}", "Take another model.")


KNOWN_SINUSOIDS = tuple(
    config.Sinusoidal(layout=layout, spacing=spacing, offset=offset)
    for layout in ("interleaved", "halves")
    for spacing in ("paper", "inclusive")
    for offset in (0, 1, 2)
)
"""Those that other libraries' tables hold; the offset is past the padding's number."""


def agree(found: Tensor, table: Tensor) -> bool:
    """Whether a table is the one that we compute; others compute in float32, whose sines are right to 1e-3."""
    return found.shape == table.shape and bool((found.double() - table).abs().max() < 1e-2)


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
