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
from sublayer.fast.decoding.prepared import Prepared, Programs
from sublayer.fast.decoding.tensors import Inputs, best, run
from sublayer.fast.engine.engine import Engine
from sublayer.fast.engine.packing import Packed, executable
from sublayer.fast.engine.program import NotLowered
from sublayer.models import CausalModel, DecoderOnly, DecoderState, EncoderDecoder, RecurrentState, SequenceToSequence
from sublayer.models.backend import DecoderBackend
from sublayer.models.source import Source
from sublayer.models.stack import require_length
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


class Runner(Prepared[Decodes, "_Programs"]):
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
        self._told = packed
        super().__init__(model, weights)

    def start(
        self, source: Tensor, source_lengths: Tensor | None = None, *, num_beams: int = 1, capacity: int | None = None
    ) -> Any:
        """As the model's own `start`."""
        self.prepare()
        programs = self._programs
        if isinstance(self.model, DecoderOnly):
            return self.model.start(source, source_lengths, num_beams=num_beams, capacity=capacity, read=self.read)
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

    def read(self, tokens: Tensor, state: AnyState) -> None:
        """Feed tokens without asking for logits. Shape: tokens [B, n] int64."""
        programs = self._programs
        if programs is not None and isinstance(state, DecoderState) and programs.guard.may_step:
            run(programs.decoding, tokens, "hidden", programs.inputs(state, tokens))
        elif isinstance(self.model, DecoderOnly) and isinstance(state, DecoderState):
            self.model.read(tokens, state)
        else:
            self.step(tokens, state)

    def _make(self, weights: config.Weights) -> _Programs:
        if type(self.model) not in (EncoderDecoder, DecoderOnly):
            raise NotLowered(f"{type(self.model).__name__} is not lowered")
        assert isinstance(self.model, EncoderDecoder | DecoderOnly)
        # Once: what is packed anew was written to, and whoever is told would take it for what was read.
        told, self._told = self._told, None
        return _Programs(self.model, weights, told)


class _Programs(Programs):
    """The programs of one decoder, and of the encoder where it has one."""

    def __init__(
        self, model: EncoderDecoder | DecoderOnly, weights: config.Weights, told: Packed | None = None
    ) -> None:
        self.model, self.decoder = model, model.decoder
        super().__init__(model, weights, told)

    def make_engines(self) -> None:
        self.decoding = Engine(executable(self.model.lower(), self.matrices), self.threads)
        encoder = self.model.lower_encoder() if isinstance(self.model, EncoderDecoder) else None
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
        cache = decoder.new_cache(count * num_beams, capacity, memory[0][0])
        return DecoderState(cache, Source(memory, lengths), num_beams, most)

    def inputs(self, state: DecoderState, tokens: Tensor) -> Inputs:
        """What the next step reads besides its tokens, [R, n]; the state moves on by n."""
        new = tokens.shape[1]
        state.make_room(new)
        source = state.source
        if any(not part.is_contiguous() for pair in source.layers for part in pair):
            # Whoever made this state has other ways to keep a source.
            source.layers = [(key.contiguous(), value.contiguous()) for key, value in source.layers]
        held = state.cache.length
        # Beams change places at every step: their table moves, not what they have kept.
        rows = state.cache.use_rows(new) if state.num_beams > 1 else None
        state.cache.advance(new)
        return Inputs(
            cache=state.cache.buffer,
            cache_rows=rows,
            held=held,
            padding=state.padding,
            memory=[part for pair in source.layers for part in pair],
            source_lengths=source.lengths,
        )
