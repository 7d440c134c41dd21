"""When the runner steps and when it leaves the step to the modules; that both agree is a law (`laws/runner.py`)."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import twins
from generation.fakes import request_of
from laws.models import CONFIGS, ROWS, build, redraw, seed_of
from sublayer import config, laws
from sublayer.errors import InputError
from sublayer.fast.decoding.runner import Runner, runner_for
from sublayer.generation.greedy import greedy
from sublayer.generation.translator import Translator
from sublayer.models import DecoderState, EncoderDecoder
from sublayer.nn.feed_forward import PositionWise
from sublayer.nn.linear import Linear
from sublayer.nn.tap import Tap

SOURCE, LENGTHS = torch.tensor([[2, 3, 4, 5], [6, 7, 8, 0]]), torch.tensor([4, 3])
TOKENS = torch.tensor([[1, 9, 4], [1, 5, 11]])


def small(seed: int = 1, **options: object) -> EncoderDecoder:
    return build(twins.tree(**options), dtype=torch.float32, seed=seed)  # type: ignore[arg-type]


def decode(
    backend: Runner | EncoderDecoder, between: Callable[[int], object] = lambda at: None, tokens: Tensor = TOKENS
) -> Tensor:
    """The logits of feeding `tokens` one by one; `between` is called before each step."""
    with torch.no_grad():
        state = backend.start(SOURCE, LENGTHS, capacity=tokens.shape[1])
        logits: list[Tensor] = []
        for at in range(tokens.shape[1]):
            between(at)
            logits.append(backend.step(tokens[:, at : at + 1], state))
    return torch.cat(logits, dim=1)


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert laws.relative_error(found, expected) < 1e-5


@pytest.fixture
def steps_by_modules(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each step that modules have computed."""
    counted: list[int] = []
    plain = EncoderDecoder.step

    def step(self: EncoderDecoder, tokens: Tensor, state: DecoderState) -> Tensor:
        counted.append(state.length)
        return plain(self, tokens, state)

    monkeypatch.setattr(EncoderDecoder, "step", step)
    return counted


@pytest.mark.parametrize("index", range(len(CONFIGS)))
def test_every_kind_of_model_is_stepped_without_modules(index: int, steps_by_modules: list[int]) -> None:
    model = build(CONFIGS[index], dtype=torch.float32, seed=index)
    backend = runner_for(model)
    assert isinstance(backend, Runner)
    decode(backend)
    assert steps_by_modules == []


# --- listeners ---------------------------------------------------------------------------------------------------


def test_a_tap_listened_to_midway_hears_every_step_from_then_on(steps_by_modules: list[int]) -> None:
    model = small()
    expected = decode(model)
    steps_by_modules.clear()
    backend, heard = Runner(model), []
    taps = [module for module in model.decoder.modules() if isinstance(module, Tap)]
    for tap in [*taps, model.logits]:
        heard.clear()
        steps_by_modules.clear()
        hooks = []

        def between(at: int, tap: Tap = tap, hooks: list = hooks) -> None:
            if at == 1:
                hooks.append(tap.register_forward_hook(lambda module, inputs, value: heard.append(value)))
            if at == 2:
                hooks.pop().remove()

        assert_close(decode(backend, between), expected)
        assert len(heard) == 1
        assert steps_by_modules == [1]


@pytest.mark.parametrize("kind", ["forward", "before", "everywhere"])
def test_any_hook_in_the_decoder_is_heard(kind: str) -> None:
    """A hook that changes what passes, on a part that is no tap."""
    model = small()
    part = model.decoder.layers[1].feed_forward
    backend = Runner(model)
    plain = decode(backend)
    match kind:
        case "forward":
            hook = part.register_forward_hook(lambda module, inputs, value: 2 * value)
        case "before":
            hook = part.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1.0,))
        case _:
            hook = nn.modules.module.register_module_forward_hook(
                lambda module, inputs, value: 2 * value if module is part else None
            )
    try:
        found, expected = decode(backend), decode(model)
    finally:
        hook.remove()
    assert torch.equal(found, expected)
    assert laws.relative_error(found, plain) > 1e-3
    assert_close(decode(backend), plain)


# --- changed weights ---------------------------------------------------------------------------------------------


def written_in_place(model: EncoderDecoder) -> None:
    model.decoder.layers[0].feed_forward.up.weight.mul_(-1)


def bias_written_in_place(model: EncoderDecoder) -> None:
    model.decoder.layers[1].self_attention.qkv.bias.add_(1)


def data_replaced(model: EncoderDecoder) -> None:
    weight = model.decoder.layers[0].cross_attention.output.weight
    weight.data = -weight.data


def parameter_replaced(model: EncoderDecoder) -> None:
    layer = model.decoder.layers[1].self_attention.output
    layer.weight = nn.Parameter(-layer.weight)


def state_loaded(model: EncoderDecoder) -> None:
    model.load_state_dict(small(seed=2).state_dict())


def all_redrawn(model: EncoderDecoder) -> None:
    redraw(model, 3)


def part_replaced(model: EncoderDecoder) -> None:
    model.decoder.layers[0].feed_forward = small(seed=4).decoder.layers[0].feed_forward


def layers_swapped(model: EncoderDecoder) -> None:
    model.decoder.layers[0], model.decoder.layers[1] = model.decoder.layers[1], model.decoder.layers[0]


def table_replaced(model: EncoderDecoder) -> None:
    model.decoder.position.table = -model.decoder.position.table


def cast_and_back(model: EncoderDecoder) -> None:
    model.double()
    redraw(model, 5)
    model.float()


WRITTEN = [written_in_place, bias_written_in_place, state_loaded, all_redrawn]
REPLACED = [data_replaced, parameter_replaced, part_replaced, layers_swapped, table_replaced, cast_and_back]


@pytest.mark.parametrize("change", [*WRITTEN, *REPLACED], ids=lambda change: change.__name__)
def test_a_change_between_decodes_is_noticed(
    change: Callable[[EncoderDecoder], None], steps_by_modules: list[int]
) -> None:
    model = small()
    backend = Runner(model)
    before = decode(backend)
    with torch.no_grad():
        change(model)
    expected = decode(model)
    assert laws.relative_error(expected, before) > 1e-3, "the change changes nothing"
    steps_by_modules.clear()
    assert_close(decode(backend), expected)
    assert steps_by_modules == []


@pytest.mark.parametrize("change", WRITTEN, ids=lambda change: change.__name__)
def test_a_change_midway_is_noticed(change: Callable[[EncoderDecoder], None], steps_by_modules: list[int]) -> None:
    def decode_and_change(backend: Runner | EncoderDecoder, model: EncoderDecoder) -> Tensor:
        def between(at: int) -> None:
            if at == 1:
                change(model)

        return decode(backend, between)

    model, other = small(), small()
    backend = Runner(model)
    before = decode(backend)
    found = decode_and_change(backend, model)
    expected = decode_and_change(other, other)
    assert laws.relative_error(expected, before) > 1e-3, "the change changes nothing"
    assert_close(found, expected)
    steps_by_modules.clear()
    decode(backend)
    assert steps_by_modules == []


def test_memory_that_is_given_to_another_weight_is_noticed() -> None:
    """Weights come and go; the second new one would stand where the first stood, if that were free."""
    model = small()
    backend = Runner(model)
    weight = model.decoder.layers[0].feed_forward.up.weight
    decode(backend)
    for _ in range(4):
        weight.data = weight.data.clone()
    weight.data = weight.data * -1
    assert_close(decode(backend), decode(model))


def test_a_copy_of_a_runner_is_its_own_models() -> None:
    backend = Runner(small())
    before = decode(backend)
    for other in (copy.deepcopy(backend), pickle.loads(pickle.dumps(backend))):  # noqa: S301 (our own bytes)
        assert other.model is not backend.model
        with torch.no_grad():
            state_loaded(other.model)
        assert_close(decode(other), decode(small(seed=2)))
        assert torch.equal(decode(backend), before)


def test_a_translator_searches_the_model_that_it_has(steps_by_modules: list[int]) -> None:
    translator = Translator(small(), None, config.Decoding())  # type: ignore[arg-type]
    decode(translator.backend)  # type: ignore[arg-type]
    assert steps_by_modules == []
    translator.model = small(seed=2)
    assert_close(decode(translator.backend), decode(small(seed=2)))  # type: ignore[arg-type]


# --- what is left to the modules ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 3])
def test_several_tokens_at_once_are_steps_too(rows: int, steps_by_modules: list[int]) -> None:
    model = small()
    tokens = torch.arange(2 * rows * 3).view(2 * rows, 3) % 23

    def fed(backend: Runner | EncoderDecoder) -> Tensor:
        state = backend.start(SOURCE, LENGTHS, num_beams=rows, capacity=3)
        return torch.cat((backend.step(tokens[:, :2], state), backend.step(tokens[:, 2:], state)), dim=1)

    with torch.no_grad():
        found = fed(Runner(model))
        assert steps_by_modules == []
        assert_close(found, fed(model))


def test_gradients_are_left_to_the_modules() -> None:
    model = small()
    backend = Runner(model)
    state = backend.start(SOURCE, LENGTHS, capacity=3)
    assert backend.step(TOKENS[:, :1], state).requires_grad


def test_a_training_model_keeps_its_dropout(steps_by_modules: list[int]) -> None:
    tree = twins.tree()
    block = tree.decoder.block.model_copy(update={"dropout": 0.5})
    tree = tree.model_copy(update={"decoder": tree.decoder.model_copy(update={"block": block})})
    model = build(tree, dtype=torch.float32)
    backend = Runner(model)
    expected = decode(backend)
    model.train()
    assert runner_for(model) is model
    assert laws.relative_error(decode(backend), expected) > 1e-3
    model.eval()
    model.decoder.layers[0].train()
    assert runner_for(model) is model
    assert laws.relative_error(decode(backend), expected) > 1e-3
    model.eval()
    steps_by_modules.clear()
    assert torch.equal(decode(backend), expected)
    assert steps_by_modules == []


def test_autocast_is_left_to_the_modules() -> None:
    model = small()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = decode(Runner(model)), decode(model)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_declined(dtype: torch.dtype) -> None:
    model = small()
    backend = Runner(model)
    decode(backend)
    model.to(dtype)
    assert runner_for(model) is model
    assert torch.equal(decode(backend), decode(model))


def test_without_one_dnn_steps_are_still_the_runners(
    monkeypatch: pytest.MonkeyPatch, steps_by_modules: list[int]
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    model = small()
    assert isinstance(runner_for(model), Runner)
    found = decode(Runner(model))
    assert steps_by_modules == []
    assert laws.relative_error(found, decode(model)) < 1e-5


def test_weights_of_inference_mode_are_declined() -> None:
    with torch.inference_mode():
        model = small()
    assert runner_for(model) is model


class Doubled(PositionWise):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def a_subclass(model: EncoderDecoder) -> None:
    model.decoder.layers[1].feed_forward.__class__ = Doubled


def a_forward_of_its_own(model: EncoderDecoder) -> None:
    linear = model.decoder.layers[0].self_attention.output
    linear.forward = lambda x: 2 * Linear.forward(linear, x)


def a_parametrization(model: EncoderDecoder) -> None:
    nn.utils.parametrizations.weight_norm(model.decoder.layers[0].feed_forward.up)


def another_activation(model: EncoderDecoder) -> None:
    model.decoder.layers[0].feed_forward.activation = torch.tanh


def vectors_rescaled(model: EncoderDecoder) -> None:
    model.decoder.embedding.tokens.max_norm = 0.1


@pytest.mark.parametrize(
    "strange",
    [a_subclass, a_forward_of_its_own, a_parametrization, another_activation, vectors_rescaled],
    ids=lambda strange: strange.__name__,
)
def test_parts_that_are_not_known_are_declined(strange: Callable[[EncoderDecoder], None]) -> None:
    model = small()
    strange(model)
    assert runner_for(model) is model
    # Some of these write to themselves.
    assert torch.equal(decode(Runner(copy.deepcopy(model))), decode(model))


# --- the state ---------------------------------------------------------------------------------------------------


def test_a_full_cache_is_refused() -> None:
    backend = Runner(small())
    with torch.no_grad():
        state = backend.start(SOURCE, LENGTHS, capacity=1)
        backend.step(TOKENS[:, :1], state)
        with pytest.raises(InputError, match="holds 1 positions; 1 are taken"):
            backend.step(TOKENS[:, 1:2], state)


def test_a_source_of_nothing_is_as_with_the_modules() -> None:
    """A length of 0 hides a whole source."""
    model = small()
    backend = Runner(model)
    lengths = torch.tensor([0, 3])
    with torch.no_grad():
        states = [each.start(SOURCE, lengths, capacity=1) for each in (backend, model)]
        assert_close(backend.step(TOKENS[:, :1], states[0]), model.step(TOKENS[:, :1], states[1]))


@pytest.fixture
def rubbish_in_empty_memory():  # type: ignore[no-untyped-def]
    """Memory that nobody has written to holds NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


EVERY_KIND_OF_SCORE = [
    next(index for index, row in enumerate(ROWS) if row["decoder_position"] == position and row["window"] == window)
    for position in ("sinusoidal", "rotary", "alibi", "relative", "none")
    for window in (None, 3)
]


@pytest.mark.usefixtures("rubbish_in_empty_memory")
@pytest.mark.parametrize("index", EVERY_KIND_OF_SCORE)
def test_what_was_never_written_is_never_read(index: int) -> None:
    assert torch.empty(3).isnan().all()
    model = build(CONFIGS[index], dtype=torch.float32, seed=seed_of(index))
    inputs = laws.Inputs.draw(model, seed=index)
    for law in (
        laws.runner.runner_is_modules,
        laws.decoding.cached_is_uncached,
        laws.equivalences.tapped_is_untapped,
        laws.decoding.chunked_is_uncached,
        laws.decoding.truncated_is_straight,
        laws.decoding.reordered_is_recomputed,
        laws.decoding.kept_is_recomputed,
        laws.search.found_is_scored,
    ):
        assert law(model, inputs).passed, law.__name__


def test_greedy_search_through_the_runner_finds_the_same() -> None:
    model = small()
    request = request_of(0, 1, [12, 9])
    with torch.inference_mode():
        found, expected = (greedy(each, SOURCE, LENGTHS, request) for each in (Runner(model), model))
    assert [h.tokens for (h,) in found] == [h.tokens for (h,) in expected]
