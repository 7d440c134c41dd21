"""A model that the engine runs: what is made of it for that, and when it is made anew."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import torch
from torch import nn

from sublayer import config
from sublayer.errors import InputError, nearest
from sublayer.fast.decoding.guard import Guard
from sublayer.fast.engine.library import FORMATS, Unavailable, say_once
from sublayer.fast.engine.packing import Matrices, Packed
from sublayer.fast.engine.program import NotLowered


class Programs:
    """The programs of one model, for as long as its `guard` says that they are right.

    Args:
        told: as of `Matrices`.

    Raises:
        NotLowered: a part of the model is not lowered. Unavailable: there is no engine here.
    """

    def __init__(self, model: nn.Module, weights: config.Weights, told: Packed | None = None) -> None:
        self.guard, self.matrices = Guard.of(model), Matrices(weights, told)
        self.renew()

    def renew(self) -> None:
        """Make the engines, for the number of threads that torch has now. Matrices that are packed already stay so."""
        self.threads = torch.get_num_threads()
        with torch.no_grad():
            self.make_engines()

    def make_engines(self) -> None:
        raise NotImplementedError(type(self).__name__)


M = TypeVar("M", bound=nn.Module)
P = TypeVar("P", bound=Programs)


class Prepared(Generic[M, P]):
    """A model and its programs, which are made when they are needed, and anew where the model is no longer the same.

    Args:
        weights: what the matrices are kept as; unset: in float32, like the model.

    Raises:
        InputError: `weights` were asked for, and they are no format, or the engine cannot run this model.
    """

    def __init__(self, model: M, weights: config.Weights | None = None) -> None:
        self.model = model
        self.weights: config.Weights | None = weights
        self._programs: P | None = None
        if weights is not None:
            if weights not in (known := [*FORMATS, "exact"]):
                raise InputError(f"weights = {weights!r} is no weight format", nearest(weights, known))
            try:
                self._programs = self._make(weights)
            except (NotLowered, Unavailable) as reason:
                raise InputError(
                    f"weights = '{weights}' cannot be had here: {reason}",
                    "Leave it out, to keep the weights as they are.",
                ) from None

    def prepare(self) -> bool:
        """Make what is not there or no longer right; whether the engine then computes, or the modules."""
        programs = self._programs
        if programs is None or programs.guard.training or not programs.guard.unchanged:
            self._programs = None
            try:
                self._programs = self._make(self.weights or "float32")
            except NotLowered:
                pass
            except Unavailable as reason:
                say_once(str(reason))
        elif programs.threads != torch.get_num_threads():
            programs.renew()
        return self._programs is not None

    def _make(self, weights: config.Weights) -> P:
        raise NotImplementedError(type(self).__name__)

    def __reduce__(self) -> tuple[Any, ...]:
        # What is prepared belongs to this very model: a copy prepares for its own.
        return type(self), (self.model, self.weights)
