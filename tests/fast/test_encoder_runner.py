"""An encoder through the engine is the encoder; what the engine does not know is left to the modules."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from laws.models import build
from laws.one_stack import ENCODER_CONFIGS
from sublayer import config, laws
from sublayer.errors import InputError
from sublayer.fast.decoding.encoder import EncoderRunner
from sublayer.models import EncoderOnly
from sublayer.models.encoder import Encoder

LOWERED = [c for c in ENCODER_CONFIGS if c.embedding.convolution is None]


def encoder(c: config.EncoderOnly, seed: int = 1) -> EncoderOnly:
    model = build(c, dtype=torch.float32, seed=seed)
    assert isinstance(model, EncoderOnly)
    return model


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each pass through the modules."""
    counted: list[int] = []
    plain = Encoder.forward

    def forward(self: Encoder, tokens: Tensor, *given: object, **more: object) -> object:
        counted.append(tokens.shape[0])
        return plain(self, tokens, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Encoder, "forward", forward)
    return counted


@torch.inference_mode()
def answers(read: EncoderRunner | EncoderOnly, inputs: laws.Inputs) -> Tensor:
    found = read(inputs.source, inputs.source_lengths)
    # What is found for padding means nothing.
    return found[inputs.source_real] if found.shape[:2] == inputs.source.shape else found


@pytest.mark.parametrize("index", range(len(LOWERED)))
def test_the_engine_reads_as_the_modules_do(index: int, passes: list[int]) -> None:
    model = encoder(LOWERED[index], seed=index)
    inputs = laws.Inputs.draw(model, seed=index)
    found = answers(EncoderRunner(model), inputs)
    assert passes == []
    exact = answers(copy.deepcopy(model).double(), inputs)  # type: ignore[arg-type]
    assert laws.relative_error(found.double(), exact) < 1e-5


def test_other_token_types_are_left_to_the_modules(passes: list[int]) -> None:
    model = encoder(next(c for c in LOWERED if c.embedding.token_types > 1))
    inputs = laws.Inputs.draw(model)
    read = EncoderRunner(model)
    types = torch.ones_like(inputs.source)
    with torch.inference_mode():
        found = read(inputs.source, inputs.source_lengths, types)
        assert torch.equal(found, model(inputs.source, inputs.source_lengths, types))
        passes.clear()
        read(inputs.source, inputs.source_lengths, torch.zeros_like(types))
    assert passes == []


def test_a_convolution_is_left_to_the_modules(passes: list[int]) -> None:
    model = encoder(next(c for c in ENCODER_CONFIGS if c.embedding.convolution is not None))
    answers(EncoderRunner(model), laws.Inputs.draw(model))
    assert len(passes) == 1
    with pytest.raises(InputError, match="an embedding with a convolution"):
        EncoderRunner(model, "int8")


def test_a_listener_hears_and_a_change_is_noticed(passes: list[int]) -> None:
    model = encoder(LOWERED[0])
    inputs, heard = laws.Inputs.draw(model), []
    read = EncoderRunner(model)
    before = answers(read, inputs)
    hook = model.encoder.layers[0].register_forward_hook(lambda module, given, found: heard.append(1))
    answers(read, inputs)
    hook.remove()
    assert heard
    assert len(passes) == 1
    with torch.no_grad():
        model.encoder.embedding.tokens.weight.mul_(-1)
    after = answers(read, inputs)
    assert laws.relative_error(after, before) > 1e-3
    assert laws.relative_error(after, answers(model, inputs)) < 1e-5


def test_a_copy_reads_its_own_model() -> None:
    model = encoder(LOWERED[0])
    inputs = laws.Inputs.draw(model)
    read = EncoderRunner(model)
    before = answers(read, inputs)
    other = copy.deepcopy(read)
    with torch.no_grad():
        other.model.encoder.embedding.tokens.weight.mul_(-1)
    assert torch.equal(answers(read, inputs), before)
    assert laws.relative_error(answers(other, inputs), before) > 1e-3


def test_threads_of_python_do_not_disturb_one_another() -> None:
    model = encoder(LOWERED[0])
    read = EncoderRunner(model)
    batches = [laws.Inputs.draw(model, seed=seed, rows=2 + seed) for seed in range(8)]
    alone = [answers(read, inputs) for inputs in batches]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            together = pool.map(lambda inputs: answers(read, inputs), batches)
            assert all(torch.equal(one, other) for one, other in zip(together, alone, strict=True))


def test_gradients_are_left_to_the_modules() -> None:
    model = encoder(LOWERED[0])
    inputs = laws.Inputs.draw(model)
    assert EncoderRunner(model)(inputs.source, inputs.source_lengths).requires_grad
