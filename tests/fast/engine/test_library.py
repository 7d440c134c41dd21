"""Which instruction set the engine uses; and what happens where there is no engine."""

from __future__ import annotations

import ctypes

import pytest
import torch

import twins
from laws.models import build
from sublayer.errors import InputError
from sublayer.fast.decoding.runner import Runner, runner_for
from sublayer.fast.engine import engine, executable, library
from sublayer.models import EncoderDecoder

SOURCE = torch.tensor([[2, 3, 4, 5]])


def model() -> EncoderDecoder:
    made = build(twins.tree(), dtype=torch.float32)
    assert isinstance(made, EncoderDecoder)
    return made


@torch.inference_mode()
def logits(backend: Runner | EncoderDecoder) -> torch.Tensor:
    return backend.step(torch.tensor([[1]]), backend.start(SOURCE, capacity=2))


@pytest.mark.parametrize("name", library.instruction_sets())
def test_every_instruction_set_of_this_processor_can_be_forced(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.ISA, name)
    assert library.instruction_set() == name
    own = model()
    with torch.inference_mode():
        expected = own.step(torch.tensor([[1]]), own.start(SOURCE, capacity=2))
    assert torch.allclose(logits(Runner(own)), expected, rtol=1e-5, atol=1e-5)


def test_the_best_comes_first_and_plain_is_always_there() -> None:
    assert library.instruction_sets()[-1] == "plain"
    assert library.instruction_set() in library.instruction_sets()


def test_an_instruction_set_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.ISA, "z80")
    with pytest.raises(InputError, match="SUBLAYER_ISA = 'z80' is not to be had"):
        Runner(model()).prepare()


def test_a_library_that_was_built_for_other_structures_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    class Longer(library.CCall):
        _fields_ = (("another", ctypes.c_int64),)

    monkeypatch.setattr(library, "CCall", Longer)
    library.library.cache_clear()
    try:
        with pytest.raises(library.Unavailable, match="was built for another version: install sublayer again"):
            library.library()
    finally:
        library.library.cache_clear()


def test_without_the_engine_modules_run_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def missing() -> None:
        raise library.Unavailable("libengine.so cannot be loaded: it was not built")

    own = model()
    expected = logits(own)
    for asking in (engine, executable):
        monkeypatch.setattr(asking, "library", missing)
    library.say_once.cache_clear()
    runner = Runner(own)
    assert torch.equal(logits(runner), expected)
    assert torch.equal(logits(Runner(own)), expected)
    assert runner_for(own) is own
    said = capfd.readouterr().err
    assert said == (
        "sublayer: models run as modules, which is slower: libengine.so cannot be loaded: it was not built\n"
    )
    with pytest.raises(InputError, match="weights = 'int8' cannot be had here"):
        Runner(own, "int8")


def test_an_unknown_weight_format_is_refused() -> None:
    with pytest.raises(InputError, match="weights = 'int3' is no weight format"):
        Runner(model(), "int3")  # pyright: ignore[reportArgumentType]


def test_a_token_outside_the_vocabulary_is_refused() -> None:
    own = model()
    runner = Runner(own)
    with torch.inference_mode():
        state = runner.start(SOURCE, capacity=3)
        for token in (own.config.vocab_size, -1):
            with pytest.raises(IndexError, match="not in the model's vocabulary"):
                runner.step(torch.tensor([[token]]), state)
        with pytest.raises(IndexError):
            runner.start(torch.tensor([[own.config.vocab_size]]), capacity=3)
