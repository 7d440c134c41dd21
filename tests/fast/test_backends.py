"""Decoder backends by name, behind `load`, `Translator` and `Generator`: whoever steps, the texts are the same."""

from __future__ import annotations

import pytest
import torch

from generation.language_models import TREES
from generation.language_models import build as build_text
from generation.prompted import tokenizer
from recurrent_models import TEXTS
from recurrent_models import build as build_recurrent
from sublayer import config
from sublayer.errors import InputError
from sublayer.fast.decoding import BackendName, FixedShapes, Runner, decoder_backend
from sublayer.generation.generator import Generator
from sublayer.models import DecoderOnly
from sublayer.models.backend import read

NAMES: tuple[BackendName, ...] = ("auto", "modules", "fixed-shapes")
PROMPTS = ["one two", "three", "four five six one"]


def model() -> DecoderOnly:
    return build_text(TREES["gemma2"].model_copy(update={"vocab_size": tokenizer().vocab_size}))


def test_who_steps() -> None:
    own = model()
    assert isinstance(decoder_backend(own), Runner)
    assert isinstance(decoder_backend(own, "fixed-shapes"), FixedShapes)
    assert decoder_backend(own, "modules") is own
    assert decoder_backend(own, lambda given: FixedShapes(given)).model is own  # type: ignore[attr-defined]
    recurrent = build_recurrent(TEXTS[0])
    assert decoder_backend(recurrent) is decoder_backend(recurrent, "modules") is recurrent


def test_texts_do_not_depend_on_who_steps() -> None:
    own = model()
    texts = []
    for name in NAMES:
        made = Generator(own, tokenizer(), config.Generation(max_tokens=6), backend=decoder_backend(own, name))
        greedy = [one.tokens for one in made.generate(PROMPTS)]
        beams = [one.tokens for one in made.generate(PROMPTS, search=config.Beam(size=3))]
        texts.append((greedy, beams))
    assert texts[0] == texts[1] == texts[2]


def test_the_shapes_of_a_step_do_not_change() -> None:
    own = model()
    backend = decoder_backend(own, "fixed-shapes")
    with torch.no_grad():
        state = backend.start(torch.tensor([[3, 4, 5], [6, 0, 0]]), torch.tensor([3, 1]), capacity=5)
        shape, address = state.cache.buffer.shape, state.cache.buffer.data_ptr()
        where = state.cache.position
        for fed in range(5):
            assert int(where) == state.length == 3 + fed
            key, _ = state.cache.layer(0).append(*torch.ones(2, *shape[2:4], 1, shape[5]))
            assert key.shape == (*shape[2:4], 8, shape[5])
            backend.step(torch.tensor([[1], [2]]), state)
        assert state.cache.buffer.shape == shape
        assert state.cache.buffer.data_ptr() == address
        assert state.cache.position is where
        with pytest.raises(InputError, match="holds 8 positions"):
            backend.step(torch.tensor([[1], [2]]), state)


def test_what_cannot_be_had_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="'fixed-shapes' cannot be had for a RecurrentDecoderOnly"):
        decoder_backend(build_recurrent(TEXTS[0]), "fixed-shapes")
    with pytest.raises(InputError, match="backend = 'quick' cannot be had"):
        decoder_backend(model(), "quick")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="weights = 'int8', but backend = 'modules' takes them as they are"):
        decoder_backend(model(), "modules", "int8")


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_join_have_room_when_the_longer_ones_have_gone(name: BackendName) -> None:
    """The columns that only those had are given back: no row has more than it was started for."""
    own = build_text(TREES["llama"])
    longest, backend = own.config.max_length, decoder_backend(own, name)
    text = torch.randint(0, own.config.vocab_size, (1, longest), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        alone = own(text)[0]
        state = backend.start(text[:, : longest - 2])
        later = backend.start(text[:, :1])
        state.join(later)
        both = backend.step(torch.stack((text[0, -2:-1], text[0, 1:2])), state)
        torch.testing.assert_close(both[:, 0], torch.stack((alone[-2], alone[1])), rtol=1e-4, atol=1e-4)
        state.keep(torch.tensor([1]))
        for place in range(2, longest):
            found = backend.step(text[:, place : place + 1], state)[0, 0]
            torch.testing.assert_close(found, alone[place], rtol=1e-4, atol=1e-4)
        with pytest.raises(InputError, match="positions"):
            backend.step(text[:, :1], state)


def test_states_of_other_widths_do_not_join() -> None:
    own = model()
    one, other = (own.start(torch.tensor([[1, 2]]), num_beams=rows) for rows in (1, 2))
    with pytest.raises(ValueError, match="1 rows a sentence cannot be joined by one of 2"):
        one.join(other)


def alone(own: DecoderOnly, texts: list[list[int]], new: torch.Tensor) -> torch.Tensor:
    """The logits of the last of `new` [B, n] after each text, by the whole model at once."""
    return torch.stack([own(torch.tensor([[*text, *row]]))[0, -1] for text, row in zip(texts, new.tolist())])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shorter", [True, False])
def test_rows_that_take_others_places_are_theirs(name: BackendName, shorter: bool) -> None:
    """Where there is room nothing else is copied; where there is not, the same comes of it."""
    own = build_text(TREES["llama"])
    backend = decoder_backend(own, name)
    old, new = [[3, 4, 5, 6, 7], [8, 9, 10], [11, 12, 13, 14]], [[2], [20, 21]]
    if not shorter:
        old, new = [[3, 4, 5], [8], [11, 12]], [[2, 3, 4, 5, 6, 7], [20, 21, 22]]
    fed = torch.tensor([[5], [6], [7]])
    with torch.inference_mode():

        def started(texts: list[list[int]], capacity: int):
            width = max(map(len, texts))
            rows = torch.tensor([text + [0] * (width - len(text)) for text in texts])
            return backend.start(rows, torch.tensor([len(text) for text in texts]), capacity=capacity)

        state = started(old, 9)
        backend.step(fed, state)
        memory = state.cache.buffer.data_ptr()
        state.replace(torch.tensor([2, 0]), started(new, 4))
        assert (state.cache.buffer.data_ptr() == memory) == shorter
        texts = [new[1], [*old[1], 6], new[0]]
        following = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
        for place in range(3):
            found = backend.step(following[:, place : place + 1], state)[:, -1]
            torch.testing.assert_close(found, alone(own, texts, following[:, : place + 1]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_forks_expanded_and_repeated_rows_go_on_from_the_same_text(name: BackendName) -> None:
    own = build_text(TREES["llama"])
    backend = decoder_backend(own, name)
    text = [3, 4, 5, 6, 7, 8]
    with torch.inference_mode():
        state = backend.start(torch.tensor([text]), capacity=0)
        fork = state.fork(4, 6)
        read(backend, torch.tensor([[9, 10]]), fork)
        found = backend.step(torch.tensor([[11]]), fork)[:, -1]
        torch.testing.assert_close(found, alone(own, [[3, 4, 5, 6]], torch.tensor([[9, 10, 11]])), rtol=1e-4, atol=1e-4)
        assert (state.length, fork.length) == (6, 7)
        wide, several = state.fork(6, 3), state.fork(6, 3)
        wide.expand(3)
        several.keep(torch.tensor([0, 0, 0]))
        fed = torch.tensor([[1], [2], [3]])
        for each in (wide, several):
            found = backend.step(fed, each)[:, -1]
            torch.testing.assert_close(found, alone(own, [text] * 3, fed), rtol=1e-4, atol=1e-4)
        with pytest.raises(ValueError, match="cannot be expanded"):
            wide.expand(2)


def test_a_cache_does_not_grow_for_as_long_as_texts_come_and_go() -> None:
    """Half a thousand texts, one after another in a batch of three that is never empty: every answer is right, and the
    cache has at most what two of the longest texts need, and half as much again."""
    own = build_text(TREES["llama"])
    backend, draw, longest = decoder_backend(own), torch.Generator().manual_seed(0), own.config.max_length

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=draw))

    def begun() -> tuple[list[int], int]:
        text = [number(0, own.config.vocab_size) for _ in range(number(1, 9))]
        return text, number(1, longest - len(text))

    with torch.inference_mode():
        texts = [begun()]
        state = backend.start(torch.tensor([texts[0][0]]), capacity=texts[0][1])
        for _ in range(500):
            if len(texts) < 3:
                texts.append(begun())
                state.join(backend.start(torch.tensor([texts[-1][0]]), capacity=texts[-1][1]))
            feed = torch.tensor([[number(0, own.config.vocab_size)] for _ in texts])
            found = backend.step(feed, state)[:, -1]
            torch.testing.assert_close(found, alone(own, [text for text, _ in texts], feed), rtol=1e-3, atol=1e-3)
            texts = [([*text, new], left - 1) for (text, left), new in zip(texts, feed.flatten().tolist())]
            assert state.cache.capacity <= 3 * longest
            over = [place for place, (_, left) in enumerate(texts) if left == 0]
            if over and number(0, 2):
                # Some take the places of those that are over, others leave them.
                for place in over:
                    texts[place] = begun()
                    state.replace(
                        torch.tensor([place]), backend.start(torch.tensor([texts[place][0]]), capacity=texts[place][1])
                    )
            elif len(over) == len(texts):
                texts = [begun()]
                state = backend.start(torch.tensor([texts[0][0]]), capacity=texts[0][1])
            elif over:
                staying = [place for place in range(len(texts)) if place not in over]
                state.keep(torch.tensor(staying))
                texts = [texts[place] for place in staying]


def test_a_recurrent_state_is_replaced_and_expanded() -> None:
    own = build_recurrent(TEXTS[0])
    with torch.no_grad():
        state = own.start(torch.tensor([[3, 4], [5, 6], [7, 8]]), capacity=6)
        own.step(torch.tensor([[1], [2], [3]]), state)
        state.replace(torch.tensor([1]), own.start(torch.tensor([[9]]), capacity=5))
        found = own.step(torch.tensor([[4], [5], [6]]), state)[:, -1]
        for row, text in enumerate(([3, 4, 1, 4], [9, 5], [7, 8, 3, 6])):
            torch.testing.assert_close(found[row], own(torch.tensor([text]))[0, -1])
        one = own.start(torch.tensor([[3, 4]]), capacity=4)
        one.expand(2)
        found = own.step(torch.tensor([[1], [2]]), one)[:, -1]
        torch.testing.assert_close(found, torch.stack([own(torch.tensor([[3, 4, new]]))[0, -1] for new in (1, 2)]))
