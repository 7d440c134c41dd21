"""The lean way to step: the step contract fulfilled by plain functions over prepared weights.

`Runner(model)` stands where the model stands: `start` and `step` of `generation/step.py`, with the same state. On a
CPU in float32 it computes a step with a third of the calls; whatever it does not know, and whenever somebody listens to
the modules, it hands the step over to them, so it may be asked instead of the model at any time. That both give the
same logits is a law (`laws/runner.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from sublayer import config
from sublayer.config.part import Part
from sublayer.generation.step import Stepper
from sublayer.models import CausalModel, DecoderOnly, DecoderState, EncoderDecoder, RecurrentState, SequenceToSequence
from sublayer.models.decoder import Decoder
from sublayer.nn import lean
from sublayer.nn.block import Block
from sublayer.nn.lean import Unknown, known
from sublayer.nn.linear import Linear, one_dnn
from sublayer.nn.mask import Mask
from sublayer.nn.positions import Position
from sublayer.nn.watch import Watch

Decodes = SequenceToSequence | CausalModel
"""The models that decode step by step."""
AnyState = DecoderState | RecurrentState


def runner_for(model: Decodes) -> Stepper[Any]:
    """A `Runner`, where it is any use to `model` as it is now; otherwise the model itself."""
    runner = Runner(model)
    return runner if runner.prepare() else model


class Runner:
    """Decodes for `model`; see above.

    What it prepares is made at `start`, and anew where the model is no longer the same. Weights that are written to
    between two steps are noticed at once, and the modules finish that decode; a module, a parameter or a parameter's
    memory that is replaced by another is noticed at the next `start`.

    Memory: one more copy of the decoder's matrices, in another layout.
    """

    def __init__(self, model: Decodes) -> None:
        self.model = model
        self._lean: _Lean | None = None

    def prepare(self) -> bool:
        """Make what is not there or no longer right; whether steps are then computed here, or by the modules."""
        if self._lean is None or self._lean.watch.training or not self._lean.watch.unchanged:
            try:
                self._lean = _Lean(self.model)
            except Unknown:
                self._lean = None
        return self._lean is not None

    def start(
        self, source: Tensor, source_lengths: Tensor | None = None, *, rows: int = 1, capacity: int | None = None
    ) -> Any:
        """As the model's own `start`."""
        self.prepare()
        return self.model.start(source, source_lengths, rows=rows, capacity=capacity)

    def step(self, tokens: Tensor, state: AnyState) -> Tensor:
        """As the model's own `step`.

        Shape: tokens [B * rows, n] int64 -> [B * rows, n, V].
        """
        lean = self._lean
        if lean is not None and isinstance(state, DecoderState) and state.padding is None and lean.may_step(tokens):
            return lean.step(tokens, state)
        return cast("Stepper[AnyState]", self.model).step(tokens, state)

    def __reduce__(self) -> tuple[type[Runner], tuple[Decodes]]:
        # What is prepared belongs to this very model: a copy of the runner prepares for its own.
        return Runner, (self.model,)


# --- what is known -----------------------------------------------------------------------------------------------

ANY, ELSEWHERE = "any value", "not of the step"
KNOWN: Mapping[type[Part], Mapping[str, str | tuple[object, ...]]] = {
    config.Stack: {"layers": ANY, "block": ANY, "others": ((),), "position": ANY},
    config.Block: {
        "attention": ANY,
        "cross_attention": ANY,
        "feed_forward": ANY,
        "norm": ANY,
        "attention_norm": ANY,
        "wiring": ("post", "pre", "sandwich", "output"),
        "position": (None,),
        "dropout": ANY,
    },
    config.Attention: {
        **dict.fromkeys(("heads", "kv_heads", "head_dim", "window", "query_key_norm", "bias", "output_bias"), ANY),
        **dict.fromkeys(("scale", "dropout"), ANY),
        "query_key_norm_over": ("head",),
        "softcap": (None,),
    },
    config.PositionWise: dict.fromkeys(("type", "hidden", "activation", "bias", "dropout"), ANY),
    config.Gated: dict.fromkeys(("type", "hidden", "activation", "bias", "dropout"), ANY),
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
    config.Embedding: {**dict.fromkeys(("scale", "norm", "dropout"), ANY), "width": (None,), "types": (0,)},
    config.EncoderDecoder: {
        **dict.fromkeys(("kind", "dim", "vocab_size", "max_length", "embedding", "tied", "output_bias"), ANY),
        "output_scale": (1.0,),
        "encoder": ELSEWHERE,
        "decoder": ANY,
    },
    config.DecoderOnly: {
        **dict.fromkeys(("kind", "dim", "vocab_size", "max_length", "embedding", "tied", "output_bias"), ANY),
        "logit_softcap": (None,),
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
        if isinstance(value, Part) and allowed is not ELSEWHERE:
            _require_known(value)


# --- the step ----------------------------------------------------------------------------------------------------


class _Lean:
    """The decoder of one model as functions, for as long as its `watch` says that they are right."""

    def __init__(self, model: Decodes) -> None:
        model = known(model, EncoderDecoder) if isinstance(model, EncoderDecoder) else known(model, DecoderOnly)
        decoder = known(model.decoder, Decoder)
        _require_known(model.config)
        self.model, self.watch = model, _watch(model, decoder)
        with torch.no_grad():
            longest = model.config.max_length
            self.places = lean.places(decoder.position, longest, torch.float32)
            self.embed = lean.embedding(decoder.embedding, self.places.added)
            self.sublayers = [
                sublayer for index, layer in enumerate(decoder.layers) for sublayer in _sublayers(layer, index)
            ]
            self.norm = lean.norm_or_none(decoder.norm)
            self.project = lean.linear(model.output)
        self.window = _window(decoder)

    def may_step(self, tokens: Tensor) -> bool:
        """Whether this step is one for the functions: a new token a row, no gradient, no listener, the same weights."""
        return (
            tokens.shape[1] == 1
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and not self.model.training
            and not self.watch.listened
            and self.watch.unwritten
        )

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """Shape: tokens [R, 1] int64 -> [R, 1, V]."""
        cache = state.cache
        cache.require_room(1)
        place, buffer = cache.length, cache.buffer
        # One query sees the last positions of a window, and they stand side by side: no mask is needed.
        first = 0 if self.window is None else max(0, place + 1 - self.window)
        step = lean.Step(
            slots=buffer.select(4, place).unbind(0),
            held=buffer.narrow(4, first, place + 1 - first).flatten(0, 1).unbind(0),
            rotation=self.places.rotation_at(place),
            bias=self.places.bias_at(place, first),
            memory=state.memory,
            memory_mask=_memory_mask(state),
        )
        x = self.embed(tokens.view(-1), place)
        for sublayer in self.sublayers:
            x = sublayer(x, step)
        cache.advance(1)
        return self.project(x if self.norm is None else self.norm(x)).unsqueeze(1)


def _window(decoder: Decoder) -> int | None:
    # Whatever its position, a stack that `KNOWN` lets pass has layers of one kind.
    ((window, _),) = decoder.kinds
    return window


def _watch(model: EncoderDecoder | DecoderOnly, decoder: Decoder) -> Watch:
    weights = [*decoder.parameters(), *model.output.parameters()]
    if not one_dnn() or any(w.device.type != "cpu" or w.dtype != torch.float32 for w in weights):
        raise Unknown("only float32 on a CPU with oneDNN")
    try:
        watch = Watch(decoder, model.output, model.logits, copied=lambda module: isinstance(module, Linear | Position))
    except ValueError as error:
        raise Unknown(str(error)) from error
    if watch.training:
        raise Unknown("dropout")
    return watch


def _sublayers(layer: nn.Module, index: int) -> list[Callable[[Tensor, lean.Step], Tensor]]:
    block = known(layer, Block)
    found = [lean.sublayer(block.self_attention_sublayer, lean.self_attention(block.self_attention, index))]
    if block.cross_attention is not None and block.cross_attention_sublayer is not None:
        look = lean.cross_attention(block.cross_attention, index)
        found.append(lean.sublayer(block.cross_attention_sublayer, look))
    return [*found, lean.sublayer(block.feed_forward_sublayer, lean.feed_forward(block.feed_forward))]


def _memory_mask(state: DecoderState) -> Tensor | None:
    """What is added to the scores of the source, [B, 1, 1, S]. The state keeps it, as it does for the modules."""
    if state.memory_lengths is None:
        return None
    if state.memory_scope is None:
        key = state.memory[0][0]
        state.memory_scope = Mask.padding(state.memory_lengths).resolve(
            1, key.shape[2], device=key.device, dtype=key.dtype
        )
    return state.memory_scope.added
