"""Equivalences that must hold on any model, whatever its weights: checkable on your own, without a test runner.

from sublayer import laws
for finding in laws.check_all(model):
    print(finding)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sublayer.laws.equivalences import (
    batched_is_single,
    cached_is_uncached,
    chunked_is_uncached,
    fused_is_explicit,
    kept_is_recomputed,
    padding_is_ignored,
    reordered_is_recomputed,
    tapped_is_untapped,
    truncated_is_straight,
)
from sublayer.laws.inputs import Inputs
from sublayer.laws.measure import TOLERANCES, Finding, relative_error
from sublayer.laws.reach import source_padding_is_unseen, source_sees_its_window, target_sees_its_past
from sublayer.laws.runner import runner_is_modules
from sublayer.laws.search import batched_beam_is_single, beam_of_one_is_greedy, found_is_scored
from sublayer.models import EncoderDecoder

LAWS: tuple[Callable[[EncoderDecoder, Inputs], Finding], ...] = (
    fused_is_explicit,
    tapped_is_untapped,
    batched_is_single,
    padding_is_ignored,
    cached_is_uncached,
    chunked_is_uncached,
    truncated_is_straight,
    reordered_is_recomputed,
    kept_is_recomputed,
    runner_is_modules,
    target_sees_its_past,
    source_sees_its_window,
    source_padding_is_unseen,
    beam_of_one_is_greedy,
    batched_beam_is_single,
    found_is_scored,
)
"""Every law, in the order in which a model's parts come into play."""


def check(model: EncoderDecoder, seed: int = 0) -> Iterator[Finding]:
    """The laws one after another, so that each can be shown when it is known.

    Args:
        model: as it stands, on its device and in its type, which sets the tolerances; it is not changed.
        seed: of the tokens on which the laws are tried.
    """
    inputs = Inputs.draw(model, seed)
    for law in LAWS:
        yield law(model, inputs)


def check_all(model: EncoderDecoder, seed: int = 0) -> list[Finding]:
    """What every law finds on `model`; see `check`."""
    return list(check(model, seed))


__all__ = [
    "LAWS",
    "TOLERANCES",
    "Finding",
    "Inputs",
    "batched_beam_is_single",
    "batched_is_single",
    "beam_of_one_is_greedy",
    "cached_is_uncached",
    "check",
    "check_all",
    "chunked_is_uncached",
    "found_is_scored",
    "fused_is_explicit",
    "kept_is_recomputed",
    "padding_is_ignored",
    "relative_error",
    "reordered_is_recomputed",
    "runner_is_modules",
    "source_padding_is_unseen",
    "source_sees_its_window",
    "tapped_is_untapped",
    "target_sees_its_past",
    "truncated_is_straight",
]
