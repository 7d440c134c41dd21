"""The tree of a CTranslate2 file: from its numbers and the shapes of its tensors (`layout` backwards)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from sublayer import config
from sublayer.errors import CheckpointError
from sublayer.hub.canonical import stack_of
from sublayer.hub.ctranslate2.layout import ACTIVATIONS, LINEAR, LLAMA3, NORMS, TABLE, sinusoids
from sublayer.hub.ctranslate2.model_bin import ModelBin
from sublayer.hub.ctranslate2.nearest import Expressible

FLAGS = ("with_source_bos", "with_source_eos", "with_target_bos", "user_decoder_start_tokens")
"""What stood in the binary before config.json had it."""
LONGEST = 2048
"""Positions of a model whose file says none: those that its sines or its rotation can compute."""


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
        self.seen: set[str] = set(FLAGS)

    def tree(self) -> Expressible:
        self._only("decoder/start_from_zero_embedding", 0)
        self._skip("decoder/alignment_layer", "decoder/alignment_heads", "encoder/alignment_layer")
        self._skip("encoder/alignment_heads", "decoder/embeddings_merge", "encoder/embeddings_merge")
        rows, dim = self._shape("decoder/embeddings/weight")
        scaled = self._scaled("decoder", dim)
        embedding = config.Embedding(scale=scaled, norm=self._norm("decoder/layernorm_embedding"))
        common: dict[str, Any] = {
            "dim": dim,
            "vocab_size": rows,
            "output_bias": "decoder/projection/bias" in self.names,
            "embedding": embedding,
        }
        stacks: dict[str, Any] = {"decoder": self._stack("decoder", dim)}
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
            if self._scaled("encoder", dim) != scaled or self._norm("encoder/layernorm_embedding") != embedding.norm:
                raise self._refusal("its two embeddings are scaled or normalized differently")
        left = [f"{name} = {value:g}" for name, value in self.numbers.items() if name not in self.seen and value]
        if left:
            raise self._refusal(f"it has {', '.join(left[:10])}, which sublayer does not know")
        return tree

    def _tied(self, dim: int) -> Literal["all", "target", "embeddings", "none"]:
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
        added: config.Position | None = None
        scopes = {tuple(name.split("/")[:2]) for name in self.names}
        while (side, f"layer_{len(blocks)}") in scopes:
            scope = f"{side}/layer_{len(blocks)}"
            blocks.append(self._block(scope, side, dim))
            rotary = self._rotary(scope, blocks[-1].attention.width(dim))
            if rotary is None and added is None:
                added = self._added(side, dim)  # a table is looked through
            position = rotary or added
            assert position is not None
            positions.append(position)
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
        activation: Any = next((name for name, value in ACTIVATIONS.items() if value == number), None)
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
