"""Recording: what is seen is what was computed, and nothing else changes."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch

from sublayer import config
from sublayer.errors import InputError
from sublayer.generation.beam import beam_search
from sublayer.generation.greedy import greedy
from sublayer.generation.step import Limits
from sublayer.inspection.recording import record
from sublayer.models import EncoderDecoder
from sublayer.nn import attend
from sublayer.nn.tap import Tap

VOCABULARY = 50
LENGTHS = torch.tensor([7, 4])


@pytest.fixture
def model() -> EncoderDecoder:
    """Random, with weights large enough that attention is far from uniform."""
    made = EncoderDecoder(config.preset("tiny").model_copy(update={"vocab_size": VOCABULARY})).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return made


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Source [2, 7] with three positions of padding in row 1, its lengths, target [2, 5]."""
    return torch.randint(4, VOCABULARY, (2, 7)), LENGTHS, torch.randint(4, VOCABULARY, (2, 5))


def _listened(model: EncoderDecoder) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, Tap) and module.listened]


def test_a_pattern_takes_the_taps_that_it_names_in_the_models_order(model, batch):
    with record(model, "decoder.layers.*.cross_attention.weights", "logits") as seen:
        assert seen.names == [
            "decoder.layers.0.cross_attention.weights",
            "decoder.layers.1.cross_attention.weights",
            "logits",
        ]
        assert _listened(model) == seen.names
        logits = model(*batch)
    assert torch.equal(seen["logits"][0], logits)
    assert all(len(calls) == 1 for calls in seen.values())
    assert not any(value[0].requires_grad for value in seen.values())


def test_rows_sum_to_one_and_padding_gets_nothing(model, batch):
    with record(model, "*_attention.weights") as seen:
        model(*batch)
    assert len(seen) == 6
    for name, (weights,) in seen.items():
        assert torch.allclose(weights.sum(-1), torch.ones(())), name
        if name.startswith("encoder") or "cross" in name:
            assert (weights[1, :, :, LENGTHS[1] :] == 0).all(), name
        else:
            assert (weights.triu(1) == 0).all(), name


def test_the_hooks_go_when_the_block_ends_however_it_ends(model, batch):
    with record(model, "*"):
        assert _listened(model)
    assert not _listened(model)
    with pytest.raises(IndexError), record(model, "*") as seen:
        model(batch[0], None, batch[2] + VOCABULARY)
    assert not _listened(model)
    assert len(seen["encoder.layers.1.stream"]) == 1
    assert seen["logits"] == []
    with pytest.raises(InputError), record(model, "logits", "nothing"):
        pass
    assert not _listened(model)


def test_only_the_layers_that_are_listened_to_leave_the_fused_path(model, batch):
    with patch.object(attend, "fused", wraps=attend.fused) as fused:
        plain = model(*batch)
        assert fused.call_count == 6
        with record(model, "decoder.layers.1.cross_attention.weights"):
            fused.reset_mock()
            tapped = model(*batch)
            assert fused.call_count == 5
        with record(model, "*.stream", "*.output", "logits"):
            fused.reset_mock()
            model(*batch)
            assert fused.call_count == 6
    assert torch.allclose(tapped, plain, rtol=1e-4, atol=1e-4)


def test_tapped_is_untapped(model, batch):
    plain = model.double()(*batch)
    with record(model, "*"):
        tapped = model(*batch)
    assert (tapped - plain).abs().max() < 1e-10 * plain.abs().max()


def test_training_goes_on_under_a_recording(model, batch):
    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model(*batch).logsumexp(-1).sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    model.double().train()
    plain = gradients()
    with record(model, "*") as seen:
        recorded = gradients()
    assert len(plain) == len(recorded) > 0
    for one, other in zip(plain, recorded, strict=True):
        assert (one - other).norm() <= 1e-10 * one.norm()
    assert not seen["logits"][0].requires_grad


@torch.inference_mode()
def test_in_generation_every_step_appends(model, batch):
    source, lengths, _ = batch
    limits = Limits(first=[1, 1], end_ids=frozenset(), steps=[4, 4])
    with record(model, "decoder.layers.0.*_attention.weights") as seen:
        greedy(model, source, lengths, limits)
    own, cross = seen.values()
    assert [tuple(step.shape) for step in own] == [(2, 4, 1, so_far) for so_far in (1, 2, 3, 4)]
    assert [tuple(step.shape) for step in cross] == [(2, 4, 1, 7)] * 4
    with record(model, "decoder.layers.0.*_attention.weights") as seen:
        beam_search(model, source, lengths, limits, beam=3, length_penalty=0.0)
    own, cross = seen.values()
    assert own[-1].shape == (6, 4, 1, 4)
    assert cross[-1].shape == (2, 4, 3, 7)


def test_what_was_recorded_is_safe_from_changes_in_place(model, batch):
    with torch.no_grad(), record(model, "logits") as seen:
        logits = model(*batch)
        kept = logits.clone()
        logits.fill_(0.0)
    assert torch.equal(seen["logits"][0], kept)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["decoder.layer.*.cross_attention.weights"], r"decoder\.layers\.\*\.cross_attention\.weights"),
        (["decoder.layers.7.cross_attention.weights"], r"decoder\.layers\.\*\.cross_attention\.weights"),
        (["decoder.layers.0.cross_attention"], r"decoder\.layers\.\*\.cross_attention\.weights"),
        (["qqq"], "encoder.*stream.*logits"),
        ([], "no pattern"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused_with_the_nearest_names(model, patterns, message):
    with pytest.raises(InputError, match=message), record(model, *patterns):
        pass
