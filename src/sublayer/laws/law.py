"""A law as a value: its name, what it asks of a model, and how far two ways are apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import update_wrapper
from typing import Generic, TypeVar, cast

import torch

from sublayer.errors import InputError
from sublayer.laws.feeding import Feeding, feeding
from sublayer.laws.inputs import Inputs
from sublayer.laws.measure import Finding, finding, tolerance
from sublayer.models import Model
from sublayer.models.evaluating import evaluating

F = TypeVar("F", bound=Feeding)
ROUNDINGS = 4
"""Ways differ in the order of all their additions; `Feeding.rounding` tells of a single one, made in one way."""


@dataclass(frozen=True)
class Apart:
    """How far two ways were apart.

    error: relative. detail: what was compared. fault: what was wrong other than the numbers; replaces `detail`.
    tolerance: how far they may be, before `allowed` looks at the model; by the type of its weights where left out.
    """

    error: float
    detail: str
    fault: str = ""
    tolerance: float | None = None


class Law(Generic[F]):
    """One law: ask it of a model, `law(model, inputs)`, or whether it has anything to say, `law.silence(model)`."""

    def __init__(self, name: str, needs: type[F], apart: Callable[[F, Inputs], Apart]) -> None:
        self.name, self.needs, self._apart = name, needs, apart
        update_wrapper(self, apart)

    def silence(self, model: Model) -> str:
        """Why the law does not apply to a model of this shape; empty where it does."""
        return "" if isinstance(feeding(model), self.needs) else self.needs.absent

    def __call__(self, model: Model, inputs: Inputs) -> Finding:
        """What the law finds on `model`, which is not changed.

        Raises:
            InputError: the law does not apply to the model.
        """
        if silence := self.silence(model):
            raise InputError(f"the law '{self.name}' does not apply: {silence}", "Ask `silence` first.")
        fed = feeding(model)
        with evaluating(model), torch.no_grad():
            found = self._apart(cast("F", fed), inputs)
            least = tolerance(model) if found.tolerance is None else found.tolerance
            # Measured only where it matters: a model that rounds well needs nothing more.
            most = least if found.error <= least else allowed(fed, inputs, least)
        return finding(self.name, found.error, most, found.detail, fault=found.fault)


def allowed(fed: Feeding, inputs: Inputs, least: float) -> float:
    """How far two ways may be apart on this very model: `least`, or some times what rounding alone does to it.

    A deep model with large numbers in its stream multiplies the last bit a hundredfold. But no more than a hundred
    times `least`, because a token that rounding sends to another expert would excuse anything.
    """
    return least if least == 0.0 else min(max(least, ROUNDINGS * fed.rounding(inputs)), 100 * least)


def law(name: str, needs: type[F]) -> Callable[[Callable[[F, Inputs], Apart]], Law[F]]:
    """Make a law of a function that tries it.

    Args:
        name: the equivalence, as "this = that". needs: what the law asks of a shape.
    """
    return lambda apart: Law(name, needs, apart)
