"""Attention maps and alignments: against the paper's equation, computed by hand from the model's own projections."""

from __future__ import annotations

import pytest
import torch

from sublayer import config
from sublayer.errors import InputError
from sublayer.generation.alignment import alignments
from sublayer.inspection.attention import attention_maps
from sublayer.inspection.recording import record
from sublayer.models import EncoderDecoder

START, END = 1, 2


@pytest.fixture
def model() -> EncoderDecoder:
    tree = config.preset("tiny").model_copy(update={"vocab_size": 50, "max_length": 12})
    made = EncoderDecoder(tree).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return made


def test_the_cross_map_is_the_softmax_of_the_scaled_products(model):
    source, target = [5, 6, 7, 8, END], [11, 12, 13]
    attention = model.decoder.layers[1].cross_attention
    inputs: list[torch.Tensor] = []
    with torch.no_grad():
        hook = attention.register_forward_pre_hook(lambda module, given: inputs.append(given[0][0]))
        model(torch.tensor([source]), None, torch.tensor([[START, *target]]))
        hook.remove()
        memory = model.encode(torch.tensor([source])).states[0]
        width = 64 // 4
        expected = []
        for head in range(4):
            rows = slice(head * width, (head + 1) * width)
            query = inputs[0] @ attention.query.weight[rows].T + attention.query.bias[rows]
            key = memory @ attention.key_value.weight[rows].T + attention.key_value.bias[rows]
            expected.append((query @ key.T / width**0.5).softmax(-1))
    maps = attention_maps(model, source, target, start_id=START, end_id=END)
    torch.testing.assert_close(maps.cross[1], torch.stack(expected), rtol=1e-4, atol=1e-6)
    assert maps.cross[1].max() > 2 / len(source)  # far from uniform, or an error would not show


def test_shapes_and_ids(model):
    maps = attention_maps(model.to(torch.bfloat16), [5, 6, END], [11, 12, 13], start_id=START, end_id=END)
    assert maps.encoder.shape == (2, 4, 3, 3)
    assert maps.decoder.shape == (2, 4, 4, 4)
    assert maps.cross.shape == (2, 4, 4, 3)
    assert maps.source_ids == [5, 6, END]
    assert maps.fed_ids == [START, 11, 12, 13]
    assert maps.predicted_ids == [11, 12, 13, END]
    for weights in (maps.encoder, maps.decoder, maps.cross):
        assert weights.dtype == torch.float32
        assert torch.allclose(weights.sum(-1), torch.ones(()), atol=0.02)
    assert (maps.decoder.triu(1) == 0).all()


def test_a_model_in_training_stays_in_training(model):
    model.train()
    attention_maps(model, [5, END], [11], start_id=START, end_id=END)
    alignments(model, [[5, END]], [[11]], start_id=START)
    assert model.training
    with pytest.raises(InputError, match="12"):
        attention_maps(model, [5] * 13, [11], start_id=START, end_id=END)
    assert model.training


def test_alignments_of_a_batch_are_the_maps_of_each(model):
    sources = [[*range(5, 5 + n % 8), END] for n in range(40)]
    targets = [list(range(20, 20 + n % 7)) for n in range(40)]
    found = alignments(model, sources, targets, start_id=START)
    assert len(found) == 40
    for source, target, alignment in zip(sources, targets, found, strict=True):
        maps = attention_maps(model, source, target, start_id=START, end_id=END)
        torch.testing.assert_close(
            alignment, maps.cross[0, :, :-1].mean(0), rtol=1e-4, atol=1e-6
        )  # the last but one of two
    [last] = alignments(model, sources[5:6], targets[5:6], start_id=START, layer=-1)
    maps = attention_maps(model, sources[5], targets[5], start_id=START, end_id=END)
    torch.testing.assert_close(last, maps.cross[1, :, :-1].mean(0), rtol=1e-4, atol=1e-6)


def test_targets_from_none_to_all_of_the_positions(model):
    full, empty = alignments(model, [[5, END], [5, 6, END]], [[7] * 12, []], start_id=START)
    assert full.shape == (12, 2)
    assert empty.shape == (0, 3)


def test_what_cannot_be_aligned(model):
    assert alignments(model, [], [], start_id=START) == []
    with pytest.raises(InputError, match="0 to 1"):
        alignments(model, [[5]], [[6]], start_id=START, layer=2)
    with pytest.raises(InputError, match="no token"):
        alignments(model, [[5], []], [[6], [7]], start_id=START)
    with pytest.raises(InputError, match="no token"):
        attention_maps(model, [], [6], start_id=START, end_id=END)


def test_nobody_listens_afterwards(model):
    with record(model, "logits"):
        attention_maps(model, [5, END], [6], start_id=START, end_id=END)
        alignments(model, [[5, END]], [[6]], start_id=START)
    assert not any(module._forward_hooks for module in model.modules())
