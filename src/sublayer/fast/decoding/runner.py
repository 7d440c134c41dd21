"""The lean way to step: the step contract (`models/backend.py`) fulfilled by plain functions over prepared weights.

`Runner(model)` stands where the model stands: `start` and `step`, with the same state. On a
CPU in float32 it computes a step with a third of the calls; whatever it does not know, and whenever somebody listens to
the modules, it hands the step over to them, so it may be asked instead of the model at any time. That both give the
same logits is a law (`laws/runner.py`).

`Runner(model, "int8")` keeps the matrices narrower than the model does (`weight_formats.py`), and so decodes faster, to
nearly the same logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from sublayer import config
from sublayer.config.part import Part
from sublayer.errors import InputError
from sublayer.fast.decoding import lean
from sublayer.fast.decoding.guard import Guard
from sublayer.fast.decoding.lean import LayerStep, Unknown, known
from sublayer.fast.decoding.weight_formats import WEIGHT_FORMATS
from sublayer.models import CausalModel, DecoderOnly, DecoderState, EncoderDecoder, RecurrentState, SequenceToSequence
from sublayer.models.backend import DecoderBackend
from sublayer.models.decoder import Decoder
from sublayer.nn.experts import MixtureOfExperts
from sublayer.nn.linear import Linear
from sublayer.nn.mask import Mask
from sublayer.nn.positions import Position

Decodes = SequenceToSequence | CausalModel
"""The models that decode step by step."""
AnyState = DecoderState | RecurrentState


def runner_for(model: Decodes, weights: config.Weights | None = None) -> DecoderBackend[Any]:
    """A `Runner`, where it is any use to `model` as it is now; otherwise the model itself.

    Raises:
        InputError: as `Runner`.
    """
    runner = Runner(model, weights)
    return runner if runner.prepare() else model


class Runner:
    """Decodes for `model`; see above.

    What it prepares is made at `start`, and anew where the model is no longer the same. Weights that are written to
    between two steps are noticed at once, and the modules finish that decode; a module, a parameter or a parameter's
    memory that is replaced by another is noticed at the next `start`.

    Memory: one more copy of the decoder's matrices, in another layout.

    Args:
        weights: what the matrices are kept as; unset: in float32, like the model, so that it is all the same who
            steps. What is narrower is for the runner alone: a step that is left to the modules has the model's own.

    Raises:
        InputError: `weights` were asked for, and this model cannot be decoded with by the runner.
    """

    def __init__(self, model: Decodes, weights: config.Weights | None = None) -> None:
        self.model = model
        self.weights: config.Weights | None = weights
        self._lean: _Lean | None = None
        if weights is not None:
            try:
                self._lean = _Lean(model, weights)
            except Unknown as reason:
                raise InputError(
                    f"weights = '{weights}' cannot be had here: {reason}",
                    "Leave it out, to decode with the weights as they are.",
                ) from None

    def prepare(self) -> bool:
        """Make what is not there or no longer right; whether steps are then computed here, or by the modules."""
        if self._lean is None or self._lean.guard.training or not self._lean.guard.unchanged:
            try:
                self._lean = _Lean(self.model, "float32" if self.weights is None else self.weights)
            except Unknown:
                self._lean = None
        return self._lean is not None

    def start(
        self, source: Tensor, source_lengths: Tensor | None = None, *, num_beams: int = 1, capacity: int | None = None
    ) -> Any:
        """As the model's own `start`."""
        self.prepare()
        if isinstance(self.model, DecoderOnly):
            return self.model.start(source, source_lengths, num_beams=num_beams, capacity=capacity, read=self._read)
        return self.model.start(source, source_lengths, num_beams=num_beams, capacity=capacity)

    def step(self, tokens: Tensor, state: AnyState) -> Tensor:
        """As the model's own `step`.

        Shape: tokens [B * num_beams, n] int64 -> [B * num_beams, n, V].
        """
        if self._lean is None or not isinstance(state, DecoderState) or not self._lean.may_step:
            return cast("DecoderBackend[AnyState]", self.model).step(tokens, state)
        return self._lean.project(self._lean.step(tokens, state)).view(*tokens.shape, -1)

    def _read(self, tokens: Tensor, state: DecoderState) -> None:
        """Feed tokens without asking for logits. Shape: tokens [B, n] int64."""
        assert isinstance(self.model, DecoderOnly)
        if self._lean is None or not self._lean.may_step:
            self.model.decoder.step(tokens, state)
        else:
            self._lean.step(tokens, state)

    def __reduce__(self) -> tuple[type[Runner], tuple[Decodes, config.Weights | None]]:
        # What is prepared belongs to this very model: a copy of the runner prepares for its own.
        return Runner, (self.model, self.weights)


# --- what is known -----------------------------------------------------------------------------------------------

ANY, ELSEWHERE = "any value", "not of the step"
KNOWN: Mapping[type[Part], Mapping[str, str | tuple[object, ...]]] = {
    config.Stack: {"layers": ANY, "block": ANY, "others": ANY, "position": ANY},
    config.OtherLayers: {"layers": ANY, "block": ANY},
    config.Block: {
        **dict.fromkeys(("attention", "cross_attention", "feed_forward", "norm", "attention_norm"), ANY),
        **dict.fromkeys(("position", "dropout"), ANY),
        "norm_placement": ("post", "pre", "sandwich", "output", "parallel", "parallel-shared"),
    },
    config.Attention: {
        **dict.fromkeys(("heads", "kv_heads", "head_dim", "window", "bias", "output_bias"), ANY),
        **dict.fromkeys(("query_key_norm", "query_key_norm_over", "scale", "softcap", "dropout"), ANY),
    },
    config.PositionWise: dict.fromkeys(("type", "hidden", "activation", "bias", "dropout"), ANY),
    config.Gated: dict.fromkeys(("type", "hidden", "activation", "bias", "dropout"), ANY),
    config.MixtureOfExperts: dict.fromkeys(("type", "experts", "active", "hidden", "activation", "normalize"), ANY),
    config.LayerNorm: dict.fromkeys(("type", "eps", "bias"), ANY),
    config.RMSNorm: dict.fromkeys(("type", "eps", "plus_one"), ANY),
    config.Sinusoidal: dict.fromkeys(("type", "base", "layout", "spacing", "offset"), ANY),
    config.Learned: {"type": ANY, "offset": ANY},
    # The tables and the turning are the module's own, whatever the scaling.
    config.Rotary: dict.fromkeys(("type", "base", "fraction", "layout", "scaling"), ANY),
    config.Unscaled: {"type": ANY},
    config.LinearScaling: {"type": ANY, "factor": ANY},
    config.NtkScaling: {"type": ANY, "factor": ANY},
    config.YarnScaling: dict.fromkeys(
        ("type", "factor", "original_length", "beta_fast", "beta_slow", "magnitude"), ANY
    ),
    config.Llama3Scaling: dict.fromkeys(
        ("type", "factor", "original_length", "low_frequency_factor", "high_frequency_factor"), ANY
    ),
    config.Alibi: {"type": ANY},
    config.RelativeBias: dict.fromkeys(("type", "buckets", "max_distance"), ANY),
    config.NoPosition: {"type": ANY},
    config.Embedding: {
        **dict.fromkeys(("scale", "width", "norm", "dropout"), ANY),
        "token_types": (0,),
        "convolution": (None,),
    },
    config.EncoderDecoder: {
        **dict.fromkeys(("kind", "dim", "vocab_size", "max_length", "embedding", "tied", "output_bias"), ANY),
        "output_scale": ANY,
        "encoder": ELSEWHERE,
        "decoder": ANY,
    },
    config.DecoderOnly: {
        **dict.fromkeys(("kind", "dim", "vocab_size", "max_length", "embedding", "tied", "output_bias"), ANY),
        "logit_softcap": ANY,
        "decoder": ANY,
    },
}
"""Every field that the functions below respect, of every part, with the values that they respect. A field or a value
that is not here makes a model run as modules: what is new is declined until somebody has thought of it."""


def _require_known(part: Part) -> None:
    """Raise `Unknown` where `part`, or a part of it, says something that is not in `KNOWN`."""
    fields = KNOWN.get(type(part), {})
    for name in type(part).model_fields:
        if name not in fields:
            raise Unknown(f"{type(part).__name__}.{name}")
        value, allowed = getattr(part, name), fields[name]
        if isinstance(allowed, tuple) and value not in allowed:
            raise Unknown(f"{type(part).__name__}.{name} = {value!r}")
        if allowed is not ELSEWHERE:
            for each in value if isinstance(value, tuple) else (value,):  # pyright: ignore[reportUnknownVariableType]
                if isinstance(each, Part):
                    _require_known(each)


# --- the step ----------------------------------------------------------------------------------------------------


class _Lean:
    """The decoder of one model as functions, for as long as its `guard` says that they are right."""

    def __init__(self, model: Decodes, weights: config.Weights) -> None:
        model = known(model, EncoderDecoder) if isinstance(model, EncoderDecoder) else known(model, DecoderOnly)
        decoder = known(model.decoder, Decoder)
        _require_known(model.config)
        self.model, self.decoder, self.guard = model, decoder, _guard(model, decoder)
        weight_format = WEIGHT_FORMATS[weights]
        with torch.no_grad():
            longest = model.config.max_length
            usual = lean.position_tables(decoder.position, longest, torch.float32)
            self.windows = [window for window, _ in decoder.kinds]
            self.position_tables = [
                usual if own is None else lean.position_tables(other, longest, torch.float32)
                for (_, own), other in zip(decoder.kinds, decoder.other_positions, strict=True)
            ]
            self.embed = lean.embedding(decoder.embedding, usual.added, weight_format)
            self.layers = [
                function
                for index, (layer, kind) in enumerate(zip(decoder.layers, decoder.kind_of_layer, strict=True))
                for function in lean.block(layer, index, kind, weight_format)
            ]
            self.norm = lean.norm_or_none(decoder.norm)
            self.output = lean.linear(model.output, weight_format)

    @property
    def may_step(self) -> bool:
        """Whether the next step is one for the functions: no gradient, no listener, the same weights."""
        return (
            not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and not self.model.training
            and not self.guard.listened
            and self.guard.unwritten
        )

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """What the decoder gives, before the projection. Shape: tokens [R, n] int64 -> [R * n, D]."""
        cache, new = state.cache, tokens.shape[1]
        state.make_room(new)
        layer_steps, firsts, where = self._one(state) if new == 1 else self._several(new, state)
        step = lean.Step(
            new=new,
            layer_steps=layer_steps,
            slots=cache.buffer.narrow(4, cache.length, new).unbind(0),
            held=[
                cache.buffer.narrow(4, first, cache.length + new - first).flatten(0, 1).unbind(0) for first in firsts
            ],
            memory=state.memory,
            memory_mask=_memory_mask(state),
        )
        x = self.embed(tokens.flatten(), where)
        for layer in self.layers:
            x = layer(x, step)
        cache.advance(new)
        return x if self.norm is None else self.norm(x)

    def project(self, hidden: Tensor) -> Tensor:
        """Shape: [N, D] -> [N, V]."""
        c = self.model.config
        if isinstance(c, config.EncoderDecoder):
            return self.output(hidden if c.output_scale == 1.0 else hidden * c.output_scale)
        logits, cap = self.output(hidden), c.logit_softcap
        return logits if cap is None else logits.div_(cap).tanh_().mul_(cap)

    def _one(self, state: DecoderState) -> tuple[list[LayerStep], list[int], int | Tensor]:
        """For one new token a row: what layers of each kind see, from which key on, and the places of the tokens."""
        place, padding = state.cache.length, state.padding
        where = place if padding is None else place - padding
        # One query sees the last positions of a window, and they stand side by side: no mask is needed.
        firsts = [0 if window is None else max(0, place + 1 - window) for window in self.windows]
        layer_steps: list[LayerStep] = []
        for tables, first in zip(self.position_tables, firsts, strict=True):
            added = tables.bias_at(place, first)
            if padding is not None:
                hidden = torch.arange(first, place + 1) < padding.view(-1, 1, 1)
                added = torch.where(hidden, float("-inf"), 0.0 if added is None else added)
            layer_steps.append(LayerStep(tables.rotation_at(where), added))
        return layer_steps, firsts, where

    def _several(self, new: int, state: DecoderState) -> tuple[list[LayerStep], list[int], Tensor]:
        """For several, who do not all see the same: masks as the modules make them."""
        rows, held, padding = state.cache.buffer.shape[2], state.cache.length, state.padding
        keys, mask = torch.arange(held + new), Mask.everything()
        if padding is not None:
            keys, mask = (keys - padding.unsqueeze(1)).clamp(min=0), Mask.left_padding(padding)
        queries = keys[..., held:]
        kinds = self.decoder.resolve(mask, queries, keys, dtype=torch.float32)
        where = queries.expand(rows, new).flatten()
        layer_steps = [
            LayerStep(tables.rotation_at(where), mask=resolved)
            for tables, (resolved, _) in zip(self.position_tables, kinds, strict=True)
        ]
        return layer_steps, [0] * len(layer_steps), where


def _guard(model: EncoderDecoder | DecoderOnly, decoder: Decoder) -> Guard:
    weights = [*decoder.parameters(), *model.output.parameters()]
    if any(w.device.type != "cpu" or w.dtype != torch.float32 for w in weights):
        raise Unknown("the model is not in float32 on a CPU")
    try:
        guard = Guard(decoder, model.output, model.logits, copied=_is_copied)
    except ValueError as error:
        raise Unknown(str(error)) from error
    if guard.training:
        raise Unknown("the model is in training")
    return guard


def _is_copied(module: nn.Module) -> bool:
    return isinstance(module, Linear | Position | MixtureOfExperts)


def _memory_mask(state: DecoderState) -> Tensor | None:
    """What is added to the scores of the source, [B, 1, 1, S]. The state keeps it, as it does for the modules."""
    mask = state.memory_mask(torch.float32)
    return None if mask is None else mask.added
