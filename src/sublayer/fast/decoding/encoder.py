"""The engine behind an encoder: its layers as a program, and what the head makes of their output by modules."""

from __future__ import annotations

from torch import Tensor

from sublayer import config
from sublayer.fast.decoding.prepared import Prepared, Programs
from sublayer.fast.decoding.tensors import Inputs, run
from sublayer.fast.engine.engine import Engine
from sublayer.fast.engine.packing import executable
from sublayer.models import EncoderOnly


class EncoderRunner(Prepared[EncoderOnly, "_Programs"]):
    """Answers for `model`, which it may be asked instead of: what is not lowered, and whatever somebody listens to, it
    leaves to the modules. Arguments and errors: as `Prepared`.
    """

    def __call__(self, tokens: Tensor, lengths: Tensor | None = None, token_type_ids: Tensor | None = None) -> Tensor:
        """As the model's own `forward`."""
        # The program knows the first type alone.
        typed = token_type_ids is not None and bool(token_type_ids.any())
        if typed or not self.prepare() or self._programs is None or not self._programs.guard.may_step:
            return self.model(tokens, lengths, token_type_ids)
        self.model.require_length(tokens)
        states = run(self._programs.engine, tokens, "states", Inputs(lengths=lengths))
        return self.model.answer(states.view(*tokens.shape, -1), lengths)

    def _make(self, weights: config.Weights) -> _Programs:
        return _Programs(self.model, weights)


class _Programs(Programs):
    def __init__(self, model: EncoderOnly, weights: config.Weights) -> None:
        self.model = model
        super().__init__(model, weights)

    def make_engines(self) -> None:
        self.engine = Engine(executable(self.model.lower(), self.matrices), self.threads)
