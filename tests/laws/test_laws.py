"""The laws on every kind of model that the tree allows, of every shape, with large random weights."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from laws.models import CONFIGS, FACTORS, INDEPENDENT, ROWS, build, name_of, seed_of
from laws.one_stack import (
    DECODER,
    DECODER_CONFIGS,
    DECODER_ROWS,
    ENCODER,
    ENCODER_CONFIGS,
    ENCODER_ROWS,
    PLAIN,
    encoder_config,
)
from laws.one_stack import INDEPENDENT as INDEPENDENT_OF_ONE_STACK
from laws.pairwise import uncovered
from sublayer import config, laws
from sublayer.errors import InputError
from sublayer.laws.measure import listening
from sublayer.laws.model_adapter import adapt
from sublayer.models import Model

CASES: dict[str, config.Model] = {
    **{f"pairs-{i}-{name_of(row)}": c for i, (row, c) in enumerate(zip(ROWS, CONFIGS))},
    **{
        f"decoder-{i}-{row['position']}-{row['norm_placement']}": c
        for i, (row, c) in enumerate(zip(DECODER_ROWS, DECODER_CONFIGS))
    },
    **{
        f"encoder-{i}-{row['position']}-{row['head']}": c
        for i, (row, c) in enumerate(zip(ENCODER_ROWS, ENCODER_CONFIGS))
    },
    "encoder-900-no-layers": encoder_config(PLAIN | {"layers": 0, "embedding": "narrow-convolved", "head": "max"}),
}
SEARCHED: dict[str, config.Model] = {name: CASES[name] for name in CASES if name.startswith("pairs")} | {
    f"decoder-{i}": c for i, c in enumerate(DECODER_CONFIGS)
}
STEPPED = {law.name for law in laws.LAWS if law.__module__.endswith(("search", "runner"))}
"""The laws that a runner steps in, which it does in float32 alone."""


# Where the number of the case draws weights whose attention is nearly uniform, and so would hide an error.
OTHER_SEEDS = {"encoder-11-rotary-interleaved-half-masked": 100}


@cache
def model_and_inputs(name: str, dtype: torch.dtype) -> tuple[Model, laws.Inputs]:
    seed = OTHER_SEEDS.get(name, int(name.split("-")[1]))
    model = build(CASES[name], dtype=dtype, seed=seed)
    return model, laws.Inputs.draw(model, seed=seed)


def assert_hold(model: Model, inputs: laws.Inputs, chosen: list[laws.Law[Any]], allowed: float) -> list[laws.Finding]:
    findings = [law(model, inputs) for law in chosen]
    assert findings
    assert not [finding for finding in findings if not finding.passed]
    assert all(finding.tolerance <= allowed for finding in findings), "a law is looser than it should be here"
    return findings


@pytest.mark.parametrize("name", CASES)
def test_laws_in_float64(name: str) -> None:
    model, inputs = model_and_inputs(name, torch.float64)
    assert_hold(model, inputs, [law for law in laws.laws_of(model) if law.name not in STEPPED], 1e-10)


@pytest.mark.parametrize("name", SEARCHED)
def test_laws_of_search_in_float32(name: str) -> None:
    index = int(name.split("-")[1])
    seed = seed_of(index) if name.startswith("pairs") else index
    model = build(SEARCHED[name], dtype=torch.float32, seed=seed)
    inputs = laws.Inputs.draw(model, seed=seed)
    findings = assert_hold(model, inputs, [law for law in laws.laws_of(model) if law.name in STEPPED], 1e-5)
    # Token for token: of a tie either would do, but there is none.
    assert not any("tie" in finding.detail for finding in findings if "greedy" in finding.law)
    assert not any("no runner" in finding.detail for finding in findings)


@pytest.mark.parametrize("name", list(CASES)[::3])
def test_laws_in_float32(name: str) -> None:
    model, inputs = model_and_inputs(name, torch.float32)
    assert_hold(model, inputs, [law for law in laws.laws_of(model) if law.name not in STEPPED], 1e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_weights_would_show_an_error(name: str) -> None:
    """Attention is neither uniform nor one-hot, numbers stay in range, and tokens are told apart."""
    model, inputs = model_and_inputs(name, torch.float64)
    adapter = adapt(model)
    with torch.no_grad(), listening(model, "weights") as seen:
        answers = adapter.answer(inputs)
    for name, (weights,) in seen.items():
        entropy = mean_entropy(weights)
        # A window of one position leaves no choice, and no entropy.
        assert entropy is None or 0.15 < entropy < 0.9, f"{name}: {entropy}"
    assert 0.3 < answers.abs().max() < 1e3
    assert answers[adapter.real(inputs)].std(0).mean() > 0.1, "positions look alike"


def mean_entropy(weights: Tensor) -> float | None:
    """The mean entropy of the rows that have a choice, 1 being uniform; None where no row has."""
    choices = (weights > 0).sum(-1)
    entropy = torch.special.entr(weights).sum(-1) / choices.clamp(min=2).log()
    return entropy[choices > 1].mean().item() if (choices > 1).any() else None


def test_every_pair_of_choices_is_covered() -> None:
    assert not uncovered(ROWS, FACTORS, INDEPENDENT)
    assert not uncovered(DECODER_ROWS, DECODER, INDEPENDENT_OF_ONE_STACK)
    assert not uncovered(ENCODER_ROWS, ENCODER, INDEPENDENT_OF_ONE_STACK)
    assert len(CASES) <= 130, "more configurations than the time allows"


@pytest.mark.parametrize(
    ("c", "not_applicable"),
    [
        (CONFIGS[0], {"packed = separate", "left-padded = unpadded"}),
        (DECODER_CONFIGS[0], {"the encoder's view", "padding is unseen"}),
        (
            ENCODER_CONFIGS[0],
            {
                *("cached = uncached", "cached in chunks = uncached", "left-padded = unpadded", "truncated = straight"),
                *("reordered = recomputed", "kept = recomputed", "runner = modules", "causality"),
                *("joined = recomputed", "fixed shapes = growing"),
                *("batched greedy = single greedy", "beam of one = greedy", "batched beam = single beam"),
                "found = scored",
            },
        ),
    ],
    ids=lambda value: value.kind if hasattr(value, "kind") else "",
)
def test_which_laws_a_shape_is_silent_on(c: config.Model, not_applicable: set[str]) -> None:
    """And says why, and refuses to be asked all the same."""
    model = build(c)
    assert set(laws.not_applicable(model)) == not_applicable
    assert all(laws.not_applicable(model).values())
    assert {law.name for law in laws.laws_of(model)} == {law.name for law in laws.LAWS} - not_applicable
    for law in laws.LAWS:
        if law.name in not_applicable:
            with pytest.raises(InputError, match=f"'{law.name}' does not apply: {law.not_applicable(model)}"):
                law(model, laws.Inputs.draw(model))
