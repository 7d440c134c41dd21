"""The runner of decoder-only models: its steps are the modules' steps, of every kind of model, padded or not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from generation.fakes import limits_of
from generation.language_models import LONGEST, TREES, VOCABULARY, build
from sublayer import laws
from sublayer.generation.greedy import greedy
from sublayer.generation.runner import Runner, runner_for
from sublayer.models import DecoderOnly, DecoderState
from sublayer.models.decoder import Decoder

ROWS, PROMPT = 3, 7
LENGTHS = torch.tensor([7, 1, 4])


@pytest.fixture
def steps_by_modules(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that the modules are asked for a step, the prompt included."""
    counted: list[int] = []
    plain = Decoder.step

    def step(self: Decoder, tokens: Tensor, state: DecoderState) -> Tensor:
        counted.append(tokens.shape[1])
        return plain(self, tokens, state)

    monkeypatch.setattr(Decoder, "step", step)
    return counted


def drawn(*shape: int) -> Tensor:
    return torch.randint(0, VOCABULARY, shape, generator=torch.Generator().manual_seed(3))


def decode(stepper: Runner | DecoderOnly, lengths: Tensor | None, rows: int = 1) -> Iterator[Tensor]:
    """The logits of one token after the other, of several at once, and of what a search may do in between."""
    source, tokens = drawn(ROWS, PROMPT), drawn(ROWS * rows, LONGEST - PROMPT)
    with torch.inference_mode():
        state = stepper.start(source, lengths, rows=rows, capacity=tokens.shape[1])
        for count in (1, 1, 3, 1):
            fed = state.length - PROMPT
            yield stepper.step(tokens[:, fed : fed + count], state)
        state.reorder(torch.arange(ROWS * rows).view(ROWS, rows).flip(1).flatten())
        yield stepper.step(tokens[:, 6:7], state)
        state.truncate(state.length - 3)
        yield stepper.step(tokens[:, 4:6], state)
        yield stepper.step(tokens[:, 6:7], state)
        state.keep(torch.tensor([2, 0]))
        kept = tokens.view(ROWS, rows, -1)[[2, 0]].flatten(0, 1)
        yield stepper.step(kept[:, 7:8], state)
        yield stepper.step(kept[:, 8:10], state)


def differences(model: DecoderOnly, lengths: Tensor | None, rows: int = 1) -> list[float]:
    """Beside the modules in float64, how far each step of the runner is off."""
    found = list(decode(Runner(model), lengths, rows))
    expected = decode(model.double(), lengths, rows)
    return [laws.relative_error(one.double(), other) for one, other in zip(found, expected, strict=True)]


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["equal", "ragged"])
@pytest.mark.parametrize("name", TREES)
def test_the_runner_is_the_modules(name: str, lengths: Tensor | None) -> None:
    model = build(TREES[name])
    assert isinstance(runner_for(model), Runner)
    assert max(differences(model, lengths)) < 1e-5


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "relative, windows, caps", "mixtral"])
def test_several_hypotheses_of_a_prompt(name: str) -> None:
    assert max(differences(build(TREES[name]), LENGTHS, rows=2)) < 1e-5


@pytest.mark.parametrize("name", TREES)
def test_no_step_is_left_to_the_modules(name: str, steps_by_modules: list[int]) -> None:
    for lengths in (None, LENGTHS):
        for _ in decode(Runner(build(TREES[name])), lengths):
            pass
    assert steps_by_modules == []


@pytest.mark.parametrize("name", TREES)
def test_a_padded_prompt_is_the_prompt_alone(name: str) -> None:
    """What stands on the left of the shorter prompts is not seen, whatever it is."""
    model = build(TREES[name])
    runner, source = Runner(model), drawn(ROWS, PROMPT)
    together = next(decode(runner, LENGTHS))
    for row, length in enumerate(LENGTHS.tolist()):
        with torch.inference_mode():
            state = runner.start(source[row : row + 1, :length], capacity=2)
            alone = runner.step(drawn(ROWS, LONGEST - PROMPT)[row : row + 1, :1], state)
        assert laws.relative_error(together[row], alone[0]) < 1e-5


def test_a_listener_hears_the_prompt_too(steps_by_modules: list[int]) -> None:
    model = build(TREES["llama"])
    runner, heard = Runner(model), []
    runner.prepare()
    hook = model.decoder.layers[0].stream.register_forward_hook(lambda module, inputs, value: heard.append(value.shape))
    for _ in decode(runner, LENGTHS):
        pass
    hook.remove()
    assert heard[0] == (ROWS, PROMPT, 16)
    assert len(heard) == len(steps_by_modules) == 10


def test_greedy_search_of_ragged_prompts(steps_by_modules: list[int]) -> None:
    model = build(TREES["gemma3"])
    limits = limits_of(1, 0, [9, 12, 6])
    with torch.inference_mode():
        found, expected = (greedy(each, drawn(ROWS, PROMPT), LENGTHS, limits) for each in (Runner(model), model))
    assert [h.tokens for (h,) in found] == [h.tokens for (h,) in expected]
