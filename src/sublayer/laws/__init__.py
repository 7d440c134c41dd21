"""Equivalences that must hold on any model, whatever its weights: checkable on your own, without a test runner.

from sublayer import laws
for finding in laws.check_all(model):
    print(finding)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sublayer.laws import decoding, equivalences, reach, runner, search
from sublayer.laws.inputs import Inputs
from sublayer.laws.law import Law
from sublayer.laws.measure import TOLERANCES, Finding, relative_error
from sublayer.models import Model

LAWS: tuple[Law[Any], ...] = (
    *equivalences.LAWS,
    *decoding.LAWS,
    *runner.LAWS,
    *reach.LAWS,
    *search.LAWS,
)
"""Every law, in the order in which a model's parts come into play."""


def laws_of(model: Model) -> tuple[Law[Any], ...]:
    """The laws that apply to a model of this shape."""
    return tuple(law for law in LAWS if not law.not_applicable(model))


def not_applicable(model: Model) -> Mapping[str, str]:
    """The names of the laws that do not apply to a model of this shape, and why they do not."""
    return {law.name: why for law in LAWS if (why := law.not_applicable(model))}


def check(model: Model, seed: int = 0) -> Iterator[Finding]:
    """The laws that apply, one after another, so that each can be shown when it is known.

    Args:
        model: of any shape, as it stands, on its device and in its type, which sets the tolerances; it is not changed.
        seed: of the tokens on which the laws are tried.
    """
    inputs = Inputs.draw(model, seed)
    for law in laws_of(model):
        yield law(model, inputs)


def check_all(model: Model, seed: int = 0) -> list[Finding]:
    """What every law that applies finds on `model`; see `check`."""
    return list(check(model, seed))


__all__ = [
    "LAWS", "TOLERANCES", "Finding", "Inputs", "Law", "check", "check_all", "decoding", "equivalences", "laws_of",
    "not_applicable", "reach", "relative_error", "runner", "search",
]  # fmt: skip
