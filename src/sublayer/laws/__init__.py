"""Equivalences that must hold on any model, whatever its weights: checkable on your own, without a test runner.

from sublayer import laws
for finding in laws.check_all(model):
    print(finding)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sublayer.laws.decoding import (
    cached_is_uncached,
    chunked_is_uncached,
    fixed_is_growing,
    joined_is_recomputed,
    kept_is_recomputed,
    left_padded_is_unpadded,
    reordered_is_recomputed,
    truncated_is_straight,
)
from sublayer.laws.equivalences import (
    batched_is_single,
    fused_is_explicit,
    packed_is_separate,
    padding_is_ignored,
    tapped_is_untapped,
)
from sublayer.laws.inputs import Inputs
from sublayer.laws.law import Law
from sublayer.laws.measure import TOLERANCES, Finding, relative_error
from sublayer.laws.reach import (
    layers_see_their_windows,
    source_padding_is_unseen,
    source_sees_its_window,
    target_sees_its_past,
)
from sublayer.laws.runner import runner_is_modules
from sublayer.laws.search import (
    batched_beam_is_single,
    batched_greedy_is_single,
    beam_of_one_is_greedy,
    found_is_scored,
)
from sublayer.models import Model

LAWS: tuple[Law[Any], ...] = (
    fused_is_explicit,
    tapped_is_untapped,
    batched_is_single,
    padding_is_ignored,
    packed_is_separate,
    cached_is_uncached,
    chunked_is_uncached,
    left_padded_is_unpadded,
    truncated_is_straight,
    reordered_is_recomputed,
    kept_is_recomputed,
    joined_is_recomputed,
    fixed_is_growing,
    runner_is_modules,
    layers_see_their_windows,
    target_sees_its_past,
    source_sees_its_window,
    source_padding_is_unseen,
    batched_greedy_is_single,
    beam_of_one_is_greedy,
    batched_beam_is_single,
    found_is_scored,
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
    "LAWS", "TOLERANCES", "Finding", "Inputs", "Law", "batched_beam_is_single", "batched_greedy_is_single",
    "batched_is_single", "beam_of_one_is_greedy", "cached_is_uncached", "check", "check_all", "chunked_is_uncached",
    "found_is_scored", "fixed_is_growing", "fused_is_explicit", "joined_is_recomputed", "kept_is_recomputed",
    "laws_of", "layers_see_their_windows", "left_padded_is_unpadded", "packed_is_separate", "padding_is_ignored",
    "relative_error", "reordered_is_recomputed", "runner_is_modules", "not_applicable", "source_padding_is_unseen",
    "source_sees_its_window", "tapped_is_untapped", "target_sees_its_past", "truncated_is_straight",
]  # fmt: skip
