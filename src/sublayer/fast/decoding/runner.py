"""The engine behind the step contract (`models/backend.py`).

`Runner(model)` stands where the model stands: `start` and `step`, with the same state. On a CPU it runs the program
that the model lowers itself to (`fast/engine/`); what is not lowered, and whatever somebody listens to, it leaves to
the modules, so it may be asked instead of the model at any time. That both give the same logits is a law
(`laws/runner.py`).

`Runner(model, "int8")` keeps the matrices narrower than the model does, and so decodes faster, to nearly the same
logits.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from sublayer import config
from sublayer.errors import InputError
from sublayer.fast.decoding.guard import Guard
from sublayer.fast.decoding.tensors import Inputs, best, run
from sublayer.fast.engine.engine import Engine
from sublayer.fast.engine.library import Unavailable, say_once
from sublayer.fast.engine.packing import Matrices, Packed, executable
from sublayer.fast.engine.program import NotLowered
from sublayer.models import CausalModel, DecoderOnly, DecoderState, EncoderDecoder, RecurrentState, SequenceToSequence
from sublayer.models.backend import DecoderBackend
from sublayer.models.stack import require_length
from sublayer.nn.cache import KeyValueCache
from sublayer.nn.context import KeysValues

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

    Memory: one more copy of the model's matrices, in another layout and in the weight format.

    Args:
        weights: what the matrices are kept as; unset: in float32, like the model, so that it is all the same who
            steps. What is narrower is for the runner alone: a step that is left to the modules has the model's own.
        packed: told each matrix once there is a copy of it, the first time.

    Raises:
        InputError: `weights` were asked for, and this model cannot be decoded with by the engine.
    """

    def __init__(self, model: Decodes, weights: config.Weights | None = None, packed: Packed | None = None) -> None:
        self.model, self._packed = model, packed if weights is None else None
        self.weights: config.Weights | None = weights
        self._programs: _Programs | None = None
        if weights is not None:
            try:
                self._programs = _Programs(model, weights, packed)
            except (NotLowered, Unavailable) as reason:
                raise InputError(
                    f"weights = '{weights}' cannot be had here: {reason}",
                    "Leave it out, to decode with the weights as they are.",
                ) from None

    def prepare(self) -> bool:
        """Make what is not there or no longer right; whether steps are then computed here, or by the modules."""
        programs = self._programs
        if programs is None or programs.guard.training or not programs.guard.unchanged:
            # Once: what is packed anew was written to, and whoever is told would take it for what was read.
            told, self._packed = self._packed, None
            try:
                self._programs = _Programs(self.model, self.weights or "float32", told)
            except NotLowered:
                self._programs = None
            except Unavailable as reason:
                self._programs = None
                say_once(str(reason))
        elif programs.threads != torch.get_num_threads():
            programs.make_engines()
        return self._programs is not None

    def start(
        self, source: Tensor, source_lengths: Tensor | None = None, *, num_beams: int = 1, capacity: int | None = None
    ) -> Any:
        """As the model's own `start`."""
        self.prepare()
        programs = self._programs
        if isinstance(self.model, DecoderOnly):
            return self.model.start(source, source_lengths, num_beams=num_beams, capacity=capacity, read=self._read)
        if isinstance(self.model, EncoderDecoder) and programs is not None and programs.guard.may_step:
            return programs.start(self.model, source, source_lengths, num_beams, capacity)
        return self.model.start(source, source_lengths, num_beams=num_beams, capacity=capacity)

    def step(self, tokens: Tensor, state: AnyState) -> Tensor:
        """As the model's own `step`.

        Shape: tokens [B * num_beams, n] int64 -> [B * num_beams, n, V].
        """
        programs = self._programs
        if programs is None or not isinstance(state, DecoderState) or not programs.guard.may_step:
            return cast("DecoderBackend[AnyState]", self.model).step(tokens, state)
        return run(programs.decoding, tokens, "logits", programs.inputs(state, tokens)).view(*tokens.shape, -1)

    def best(self, tokens: Tensor, state: AnyState, count: int) -> tuple[Tensor, Tensor] | None:
        """Feed a token a row as `step` does; what may follow, or None where the modules step, which feeds nothing.

        Shape: tokens [B * num_beams, 1] int64 -> the log-probabilities [B * num_beams, count] of the most probable
        tokens, largest first, and the tokens.
        """
        programs = self._programs
        if programs is None or not isinstance(state, DecoderState) or not programs.guard.may_step:
            return None
        return best(programs.decoding, tokens, "logits", programs.inputs(state, tokens), count)

    def _read(self, tokens: Tensor, state: DecoderState) -> None:
        """Feed tokens without asking for logits. Shape: tokens [B, n] int64."""
        assert isinstance(self.model, DecoderOnly)
        programs = self._programs
        if programs is None or not programs.guard.may_step:
            self.model.decoder.step(tokens, state)
        else:
            run(programs.decoding, tokens, "hidden", programs.inputs(state, tokens))

    def __reduce__(self) -> tuple[type[Runner], tuple[Decodes, config.Weights | None]]:
        # What is prepared belongs to this very model: a copy of the runner prepares for its own.
        return Runner, (self.model, self.weights)


class _Programs:
    """The programs of one model, for as long as its `guard` says that they are right."""

    def __init__(self, model: Decodes, weights: config.Weights, packed: Packed | None = None) -> None:
        if type(model) not in (EncoderDecoder, DecoderOnly):
            raise NotLowered(f"{type(model).__name__} is not lowered")
        assert isinstance(model, EncoderDecoder | DecoderOnly)
        self.model, self.decoder, self.guard = model, model.decoder, Guard.of(model)
        self.matrices = Matrices(weights, packed)
        self.make_engines()

    def make_engines(self) -> None:
        """Make the engines, for the number of threads that torch has now. Matrices that are packed already stay so."""
        model, self.threads = self.model, torch.get_num_threads()
        with torch.no_grad():
            self.decoding = Engine(executable(model.lower(), self.matrices), self.threads)
            encoder = model.lower_encoder() if isinstance(model, EncoderDecoder) else None
            self.encoding = None if encoder is None else Engine(executable(encoder, self.matrices), self.threads)

    def start(
        self, model: EncoderDecoder, source: Tensor, lengths: Tensor | None, num_beams: int, capacity: int | None
    ) -> DecoderState:
        """`model.start`: the source's keys and values are written where the state keeps them."""
        require_length("source", source.shape[1], model.config.max_length)
        most = model.config.max_length
        decoder, (count, size) = self.decoder, source.shape
        crosses = [decoder.cross_attention(index) for index in range(len(decoder.layers))]
        shapes = [(count, cross.groups, size, cross.width) for cross in crosses]
        memory: list[KeysValues] = [(torch.empty(shape), torch.empty(shape)) for shape in shapes]
        assert self.encoding is not None
        parts = [part for pair in memory for part in pair]
        run(self.encoding, source, None, Inputs(lengths=lengths, memory=parts))
        capacity = most if capacity is None else min(capacity, most)
        cache = KeyValueCache(
            layers=len(decoder.layers), rows=count * num_beams, heads=decoder.cache_heads, capacity=capacity,
            width=decoder.cache_width, dtype=torch.float32, device=source.device,
        )  # fmt: skip
        return DecoderState(cache, memory, lengths, num_beams, most)

    def inputs(self, state: DecoderState, tokens: Tensor) -> Inputs:
        """What the next step reads besides its tokens, [R, n]; the state moves on by n."""
        new = tokens.shape[1]
        state.make_room(new)
        if any(not part.is_contiguous() for pair in state.memory for part in pair):
            # Whoever made this state has other ways to keep a source.
            state.memory = [(key.contiguous(), value.contiguous()) for key, value in state.memory]
        held = state.cache.length
        state.cache.advance(new)
        return Inputs(
            cache=state.cache.buffer,
            held=held,
            padding=state.padding,
            memory=[part for pair in state.memory for part in pair],
            source_lengths=state.memory_lengths,
        )
