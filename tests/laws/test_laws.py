"""The laws on every kind of model that the tree allows, with large random weights."""

from __future__ import annotations

import itertools
from functools import cache

import pytest
import torch
from torch import Tensor

from laws.models import CONFIGS, FACTORS, INDEPENDENT, ROWS, build, name_of
from sublayer import laws
from sublayer.laws.measure import listening
from sublayer.models import EncoderDecoder

NAMES = [f"{index}-{name_of(row)}" for index, row in enumerate(ROWS)]
EVERY_CONFIG = pytest.mark.parametrize("index", range(len(CONFIGS)), ids=NAMES)
EVERY_LAW = pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)


@cache
def model_and_inputs(index: int, dtype: torch.dtype) -> tuple[EncoderDecoder, laws.Inputs]:
    model = build(CONFIGS[index], dtype=dtype, seed=index)
    return model, laws.Inputs.draw(model, seed=index)


def assert_holds(finding: laws.Finding, allowed: float) -> None:
    assert finding.tolerance <= allowed, "the law is looser than it should be here"
    assert finding.passed, finding


@EVERY_CONFIG
@EVERY_LAW
def test_law_in_float64(law, index: int) -> None:
    model, inputs = model_and_inputs(index, torch.float64)
    finding = law(model, inputs)
    # Search adds up in float32, and a runner steps in it, whatever the model computes in.
    assert_holds(finding, 1e-5 if law.__module__.endswith(("search", "runner")) else 1e-10)


@EVERY_CONFIG
def test_laws_in_float32(index: int) -> None:
    """Those of search through the runner, which steps in float32 alone."""
    model, inputs = model_and_inputs(index, torch.float32)
    for law in laws.LAWS:
        finding = law(model, inputs)
        assert_holds(finding, 1e-5)
        assert "no runner" not in finding.detail


@EVERY_CONFIG
def test_the_weights_would_show_an_error(index: int) -> None:
    """Attention is neither uniform nor one-hot, numbers stay in range, and tokens are told apart."""
    model, inputs = model_and_inputs(index, torch.float64)
    with torch.no_grad(), listening(model, "weights") as seen:
        logits = model(inputs.source, inputs.source_lengths, inputs.target)
    for name, (weights,) in seen.items():
        entropy = mean_entropy(weights)
        # A window of one position leaves no choice, and no entropy.
        assert entropy is None or 0.15 < entropy < 0.9, f"{name}: {entropy}"
    assert 0.3 < logits.abs().max() < 1e3
    assert logits[inputs.real].std(0).mean() > 0.1, "positions look alike"


def mean_entropy(weights: Tensor) -> float | None:
    """The mean entropy of the rows that have a choice, 1 being uniform; None where no row has."""
    choices = (weights > 0).sum(-1)
    entropy = torch.special.entr(weights).sum(-1) / choices.clamp(min=2).log()
    return entropy[choices > 1].mean().item() if (choices > 1).any() else None


def test_every_pair_of_choices_is_covered() -> None:
    for a, b in itertools.combinations(FACTORS, 2):
        if frozenset((a, b)) not in INDEPENDENT:
            covered = {(row[a], row[b]) for row in ROWS}
            assert covered == set(itertools.product(FACTORS[a], FACTORS[b])), (a, b)
    assert len(ROWS) <= 50, "more configurations than the time allows"
