"""The engine behind an encoder: its layers as a program, and what the head makes of their output by modules."""

from __future__ import annotations

import torch
from torch import Tensor

from sublayer import config
from sublayer.errors import InputError
from sublayer.fast.decoding.guard import Guard
from sublayer.fast.decoding.tensors import Inputs, run
from sublayer.fast.engine.engine import Engine
from sublayer.fast.engine.library import Unavailable, say_once
from sublayer.fast.engine.packing import Matrices, executable
from sublayer.fast.engine.program import NotLowered
from sublayer.models import EncoderOnly


class EncoderRunner:
    """Answers for `model`, which it may be asked instead of: what is not lowered, and whatever somebody listens to, it
    leaves to the modules.

    Args:
        weights: what the matrices of the layers are kept as; unset: in float32, like the model.

    Raises:
        InputError: `weights` were asked for, and the engine cannot run this model.
    """

    def __init__(self, model: EncoderOnly, weights: config.Weights | None = None) -> None:
        self.model = model
        self.weights: config.Weights | None = weights
        self._made: tuple[Guard, int, Engine] | None = None
        if weights is not None:
            try:
                self._made = self._make(Guard.of(model))
            except (NotLowered, Unavailable) as reason:
                raise InputError(
                    f"weights = '{weights}' cannot be had here: {reason}",
                    "Leave it out, to read with the weights as they are.",
                ) from None

    def __call__(self, tokens: Tensor, lengths: Tensor | None = None, token_type_ids: Tensor | None = None) -> Tensor:
        """As the model's own `forward`."""
        if token_type_ids is not None and bool(token_type_ids.any()):
            # The program knows the first type alone.
            return self.model(tokens, lengths, token_type_ids)
        guard, _, engine = self._prepared() or (None, 0, None)
        if guard is None or engine is None or not guard.may_step:
            return self.model(tokens, lengths, token_type_ids)
        self.model.require_length(tokens)
        states = run(engine, tokens, "states", Inputs(lengths=lengths))
        return self.model.answer(states.view(*tokens.shape, -1), lengths)

    def prepare(self) -> bool:
        """Make what is not there or no longer right; whether the engine then answers, or the modules."""
        return self._prepared() is not None

    def __reduce__(self) -> tuple[type[EncoderRunner], tuple[EncoderOnly, config.Weights | None]]:
        # What is made belongs to this very model: a copy makes its own.
        return EncoderRunner, (self.model, self.weights)

    def _prepared(self) -> tuple[Guard, int, Engine] | None:
        """What is made, where it is still right, or else made anew; None where the modules read."""
        made = self._made
        if made is None or made[0].training or not made[0].unchanged or made[1] != torch.get_num_threads():
            try:
                self._made = self._make(Guard.of(self.model))
            except NotLowered:
                self._made = None
            except Unavailable as reason:
                self._made = None
                say_once(str(reason))
        return self._made

    def _make(self, guard: Guard) -> tuple[Guard, int, Engine]:
        threads = torch.get_num_threads()
        with torch.no_grad():
            engine = Engine(executable(self.model.lower(), Matrices(self.weights or "float32")), threads)
        return guard, threads, engine
