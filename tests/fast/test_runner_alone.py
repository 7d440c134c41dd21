"""The runner of decoder-only models: its steps are the modules' steps, of every kind of model, padded or not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from generation.fakes import request_of
from generation.language_models import LONGEST, TREES, VOCABULARY, build
from generation.prompted import generator, tokenizer
from sublayer import config, laws
from sublayer.errors import InputError
from sublayer.fast.decoding import decoder_backend
from sublayer.fast.decoding.runner import Runner, runner_for
from sublayer.generation.generator import Generator
from sublayer.generation.greedy import greedy
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


def decode(backend: Runner | DecoderOnly, lengths: Tensor | None, rows: int = 1) -> list[Tensor]:
    """The logits of one token after the other, of several at once, and of what a search may do in between."""
    source, tokens = drawn(ROWS, PROMPT), drawn(ROWS * rows, LONGEST - PROMPT)
    found: list[Tensor] = []

    def feed(given: Tensor) -> None:
        found.append(backend.step(given, state))

    with torch.inference_mode():
        state = backend.start(source, lengths, num_beams=rows, capacity=tokens.shape[1])
        for count in (1, 1, 3, 1):
            fed = state.length - PROMPT
            feed(tokens[:, fed : fed + count])
        state.reorder(torch.arange(ROWS * rows).view(ROWS, rows).flip(1).flatten())
        feed(tokens[:, 6:7])
        state.truncate(state.length - 3)
        feed(tokens[:, 4:6])
        feed(tokens[:, 6:7])
        state.keep(torch.tensor([2, 0]))
        kept = tokens.view(ROWS, rows, -1)[[2, 0]].flatten(0, 1)
        feed(kept[:, 7:8])
        feed(kept[:, 8:10])
    return found


def differences(model: DecoderOnly, lengths: Tensor | None, rows: int = 1) -> list[float]:
    """Beside the modules in float64, how far each step of the runner is off."""
    found = decode(Runner(model), lengths, rows)
    expected = decode(model.double(), lengths, rows)
    return [laws.relative_error(one.double(), other) for one, other in zip(found, expected, strict=True)]


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["equal", "ragged"])
@pytest.mark.parametrize("name", TREES)
def test_the_runner_is_the_modules(name: str, lengths: Tensor | None) -> None:
    model = build(TREES[name])
    assert isinstance(runner_for(model), Runner)
    assert max(differences(model, lengths)) < 1e-5


@pytest.mark.parametrize("name", TREES)
def test_a_prompt_that_is_all_padding_leaves_the_cache_finite(name: str) -> None:
    """Beside one token another prompt may have none: 0 times what it leaves must stay 0 in every later step."""
    state_of = Runner(build(TREES[name]))
    with torch.inference_mode():
        state = state_of.start(torch.tensor([[5], [0]]), torch.tensor([1, 0]), num_beams=1, capacity=4)
        for _ in range(2):
            assert state_of.step(torch.tensor([[6], [7]]), state).isfinite().all()


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "relative, windows, caps", "mixtral"])
def test_several_hypotheses_of_a_prompt(name: str) -> None:
    assert max(differences(build(TREES[name]), LENGTHS, rows=2)) < 1e-5


@pytest.mark.parametrize("name", TREES)
def test_no_step_is_left_to_the_modules(name: str, steps_by_modules: list[int]) -> None:
    for lengths in (None, LENGTHS):
        decode(Runner(build(TREES[name])), lengths)
    assert steps_by_modules == []


@pytest.mark.parametrize("name", TREES)
def test_a_padded_prompt_is_the_prompt_alone(name: str) -> None:
    """What stands on the left of the shorter prompts is not seen, whatever it is."""
    model = build(TREES[name])
    runner, source = Runner(model), drawn(ROWS, PROMPT)
    together = decode(runner, LENGTHS)[0]
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
    decode(runner, LENGTHS)
    hook.remove()
    assert heard[0] == (ROWS, PROMPT, 16)
    assert len(heard) == len(steps_by_modules) == 10


def test_greedy_search_of_ragged_prompts(steps_by_modules: list[int]) -> None:
    model = build(TREES["gemma3"])
    request = request_of(1, 0, [9, 12, 6])
    with torch.inference_mode():
        found, expected = (greedy(each, drawn(ROWS, PROMPT), LENGTHS, request) for each in (Runner(model), model))
    assert [h.tokens for (h,) in found] == [h.tokens for (h,) in expected]


# --- weights of another type ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["bfloat16", "int8", "int4", "exact"])
def test_weights_that_cannot_be_had_are_refused(weights: config.Weights) -> None:
    for spoilt, reason in (
        (build(TREES["llama"]).bfloat16(), "float32 on a CPU"),
        (build(TREES["llama"]).train(), "training"),
    ):
        with pytest.raises(InputError, match=reason) as refused:
            Runner(spoilt, weights)
        assert f"weights = '{weights}'" in str(refused.value)


def test_a_generator_of_int8_weights() -> None:
    own = tokenizer()
    tree = TREES["gemma2"].model_copy(update={"vocab_size": own.vocab_size})
    narrow = decoder_backend(build(tree), weights="int8")
    model = Generator(build(tree), own, config.Generation(max_tokens=5), backend=narrow)
    rows = model.generate(["one two", "three"])
    assert [len(one.tokens) for one in rows] == [5, 5] or any(one.best.ended == "end" for one in rows)
    with pytest.raises(InputError, match="float32 on a CPU"):
        decoder_backend(build(tree).double(), weights="int8")


def test_a_generator_steps_by_a_runner(steps_by_modules: list[int]) -> None:
    own = tokenizer()
    model = build(TREES["gemma2"].model_copy(update={"vocab_size": own.vocab_size}))
    Generator(model, own, config.Generation(max_tokens=5)).generate(["one two", "three", "four five six"])
    assert steps_by_modules == []


def test_a_model_that_decodes_by_itself_has_no_weights_to_choose() -> None:
    with pytest.raises(InputError, match="LanguageTable decodes by itself"):
        decoder_backend(generator().model, weights="int8")
