"""A law as a value: its name, what it asks of a model, and how far two ways are apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import update_wrapper
from typing import Generic, TypeVar, cast

import torch

from sublayer.errors import InputError
from sublayer.laws.inputs import Inputs
from sublayer.laws.measure import Finding, finding, tolerance
from sublayer.laws.model_adapter import ModelAdapter, adapt
from sublayer.models import Model
from sublayer.models.evaluating import evaluating

F = TypeVar("F", bound=ModelAdapter)
ROUNDINGS = 4
"""Ways differ in the order of all their additions; `ModelAdapter.rounding` tells of a single one, made in one way."""


@dataclass(frozen=True)
class Discrepancy:
    """How far two ways were apart.

    error: relative. detail: what was compared. fault: what was wrong other than the numbers; replaces `detail`.
    tolerance: how far they may be, before `allowed` looks at the model; by the type of its weights where left out.
    """

    error: float
    detail: str
    fault: str = ""
    tolerance: float | None = None


class Law(Generic[F]):
    """One law: ask it of a model, `law(model, inputs)`, or why it does not apply, `law.not_applicable(model)`."""

    def __init__(self, name: str, needs: type[F], measure: Callable[[F, Inputs], Discrepancy]) -> None:
        self.name, self.needs, self._measure = name, needs, measure
        update_wrapper(self, measure)

    def not_applicable(self, model: Model) -> str:
        """Why the law does not apply to a model of this shape; empty where it does."""
        return "" if isinstance(adapt(model), self.needs) else self.needs.absent

    def __call__(self, model: Model, inputs: Inputs) -> Finding:
        """What the law finds on `model`, which is not changed.

        Raises:
            InputError: the law does not apply to the model.
        """
        if why := self.not_applicable(model):
            raise InputError(f"the law '{self.name}' does not apply: {why}", "Ask `not_applicable` first.")
        adapter = adapt(model)
        with evaluating(model), torch.no_grad():
            found = self._measure(cast("F", adapter), inputs)
            least = tolerance(model) if found.tolerance is None else found.tolerance
            # Measured only where it matters: a model that rounds well needs nothing more.
            most = least if found.error <= least else allowed(adapter, inputs, least)
        return finding(self.name, found.error, most, found.detail, fault=found.fault)


def allowed(adapter: ModelAdapter, inputs: Inputs, least: float) -> float:
    """How far two ways may be apart on this very model: `least`, or some times what rounding alone does to it.

    A deep model with large numbers in its stream multiplies the last bit a hundredfold. But no more than a hundred
    times `least`, because a token that rounding sends to another expert would excuse anything.
    """
    return least if least == 0.0 else min(max(least, ROUNDINGS * adapter.rounding(inputs)), 100 * least)


def law(name: str, needs: type[F]) -> Callable[[Callable[[F, Inputs], Discrepancy]], Law[F]]:
    """Make a law of a function that tries it.

    Args:
        name: the equivalence, as "this = that". needs: what the law asks of a shape.
    """
    return lambda measure: Law(name, needs, measure)
