"""The step contract, fulfilled by recurrent models: every way of decoding is the whole text at once."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from recurrent_models import PAIRS, TEXTS, VOCAB, build, name
from sublayer import config
from sublayer.errors import InputError
from sublayer.fast.decoding.runner import Runner
from sublayer.generation.beam import beam_search
from sublayer.generation.greedy import greedy
from sublayer.generation.request import DecodeRequest
from sublayer.generation.speculative import DraftModel, speculate
from sublayer.laws import relative_error

LENGTHS = torch.tensor([7, 3, 1, 5])
END = 2


def draw(rows: int, size: int) -> Tensor:
    return torch.randint(3, VOCAB, (rows, size))


def started(model, rows: int = 1):
    """A state of four texts, and the logits that any tokens [4 * rows, T] should get, however they are fed."""
    if isinstance(model.config, config.RecurrentEncoderDecoder):
        source = draw(4, 7)
        state = model.start(source, LENGTHS, num_beams=rows)

        def whole(tokens: Tensor, sentences: Tensor | None = None) -> Tensor:
            each = torch.arange(4) if sentences is None else sentences
            again = each.repeat_interleave(rows)
            return model(source[again], LENGTHS[again], tokens)

        return state, whole
    # Prompts: one of them of a single token, of which nothing is read at the start.
    prompt, lengths = draw(4, 7), LENGTHS - 1
    state = model.start(prompt, lengths, num_beams=rows)

    def whole(tokens: Tensor, sentences: Tensor | None = None) -> Tensor:
        each = torch.arange(4) if sentences is None else sentences
        found = []
        for row, text in zip(each.repeat_interleave(rows).tolist(), tokens, strict=True):
            read = prompt[row, : int(lengths[row])]
            found.append(model(torch.cat((read, text)).unsqueeze(0))[0, len(read) :])
        return torch.stack(found)

    return state, whole


@pytest.fixture(params=[*PAIRS, *TEXTS], ids=name)
def model(request: pytest.FixtureRequest):
    with torch.no_grad():
        yield build(request.param)


@pytest.mark.parametrize("chunks", [(1,), (3, 1, 2), (6,)])
def test_steps_are_the_whole_text(model, chunks: tuple[int, ...]) -> None:
    state, whole = started(model)
    tokens, base, found = draw(4, 6), state.length, []
    sizes = itertools.cycle(chunks)
    while state.length - base < 6:
        place = state.length - base
        found.append(model.step(tokens[:, place : place + next(sizes)], state))
    assert state.length - base == 6
    assert relative_error(torch.cat(found, dim=1), whole(tokens)) < 1e-10


def test_hypotheses_take_each_others_place(model) -> None:
    state, whole = started(model, rows=3)
    tokens = draw(12, 6)
    for place in range(3):
        model.step(tokens[:, place : place + 1], state)
    # Within each sentence a permutation, one row over another, and twice in a row.
    for choice in ([[1, 2, 0], [2, 2, 1], [0, 0, 0], [0, 1, 2]], [[2, 0, 0], [1, 0, 2], [0, 1, 1], [2, 1, 0]]):
        rows = (torch.arange(4).unsqueeze(1) * 3 + torch.tensor(choice)).flatten()
        state.reorder(rows)
        tokens = torch.cat((tokens[rows, :3], tokens[:, 3:]), dim=1)
    assert relative_error(model.step(tokens[:, 3:], state), whole(tokens)[:, 3:]) < 1e-10


def test_sentences_stay_when_others_leave(model) -> None:
    state, whole = started(model, rows=2)
    tokens, kept = draw(8, 6), torch.tensor([3, 1])
    for place in range(2):
        model.step(tokens[:, place : place + 1], state)
    state.keep(kept)
    tokens = tokens.view(4, 2, 6)[kept].flatten(0, 1)
    found = torch.cat([model.step(tokens[:, at : at + 2], state) for at in (2, 4)], dim=1)
    assert relative_error(found, whole(tokens, kept)[:, 2:]) < 1e-10


def test_going_back_and_on_is_going_straight(model) -> None:
    """Far and near, in the middle of a chunk, twice before the next step, past every mark, and after a reordering."""
    state, whole = started(model, rows=2)
    base, right, wrong = state.length, draw(8, 20), draw(8, 20)
    expected = whole(right)

    def go(begin: int, end: int, *, one_by_one: bool = False) -> None:
        for at in range(begin, end, 1 if one_by_one else end - begin):
            stop = at + 1 if one_by_one else end
            assert relative_error(model.step(right[:, at:stop], state), expected[:, at:stop]) < 1e-10

    def stray(count: int, *, one_by_one: bool = False) -> None:
        for at in range(0, count, 1 if one_by_one else count):
            model.step(wrong[:, at : at + 1 if one_by_one else count], state)

    go(0, 3)
    stray(4)
    state.truncate(base + 3)
    go(3, 6, one_by_one=True)
    stray(5, one_by_one=True)
    state.truncate(base + 8)
    state.truncate(base + 5)
    go(5, 9)
    state.truncate(base + 7)
    assert state.length == base + 7
    go(7, 20, one_by_one=True)
    state.truncate(base + 1)  # further back than any mark but the first
    go(1, 4)
    swapped = torch.tensor([1, 0, 3, 2, 5, 4, 7, 6])
    state.reorder(swapped)
    state.truncate(base + 2)
    right, expected = right[swapped], expected[swapped]
    go(2, 9)
    state.truncate(base)
    go(0, 2)


def test_a_state_goes_back_no_further_than_it_began(model) -> None:
    state, _ = started(model)
    with pytest.raises(ValueError, match="cannot truncate"):
        state.truncate(state.length - 1)
    with pytest.raises(ValueError, match="cannot truncate"):
        state.truncate(state.length + 1)


def test_no_more_is_fed_than_there_is_room_for() -> None:
    model = build(PAIRS[0])
    state = model.start(draw(2, 4), capacity=3)
    model.step(draw(2, 2), state)
    with pytest.raises(InputError, match="is for 3 tokens; 2 are taken and 2 more"):
        model.step(draw(2, 2), state)


def test_a_long_text_takes_no_more_memory_than_a_short_one() -> None:
    model = build(TEXTS[0])
    state = model.start(draw(2, 3))
    before = state.bytes
    for _ in range(30):
        model.step(draw(2, 1), state)
    assert state.bytes == before == 2 * 2 * 2 * 10 * 8


# --- search ------------------------------------------------------------------------------------------------------


def request(model, count: int) -> DecodeRequest:
    return DecodeRequest(first=[1] * count, end_ids=frozenset({END}), steps=[9, 6, 9, 4][:count])


def source_of(model) -> tuple[Tensor, Tensor]:
    lengths = LENGTHS if isinstance(model.config, config.RecurrentEncoderDecoder) else LENGTHS - 1
    return draw(4, 7), lengths


def test_a_beam_of_one_is_greedy(model) -> None:
    source, lengths = source_of(model)
    one = beam_search(model, source, lengths, request(model, 4), beam=1, length_penalty=0.7)
    other = greedy(model, source, lengths, request(model, 4), length_penalty=0.7)
    assert [[h.tokens for h in each] for each in one] == [[h.tokens for h in each] for each in other]


def test_a_batched_beam_is_single_and_scores_what_the_model_says(model) -> None:
    source, lengths = source_of(model)
    asked = request(model, 4)
    together = beam_search(model, source, lengths, asked, beam=3, length_penalty=0.7)
    for row in range(4):
        size = int(lengths[row])
        [alone] = beam_search(model, source[row : row + 1, :size], None, asked.of(row), beam=3, length_penalty=0.7)
        assert [h.tokens for h in alone] == [h.tokens for h in together[row]]
        best = alone[0]
        said = [*best.tokens, END] if best.complete else best.tokens
        fed = torch.tensor([[1, *said[:-1]]])
        if isinstance(model.config, config.RecurrentEncoderDecoder):
            logits = model(source[row : row + 1, :size], None, fed)[0]
        else:
            logits = model(torch.cat((source[row : row + 1, :size], fed), dim=1))[0, size:]
        expected = logits.float().log_softmax(-1).gather(1, torch.tensor(said).unsqueeze(1)).sum()
        assert best.log_probability == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("tree", TEXTS, ids=name)
def test_speculation_says_what_greedy_search_says(tree: config.RecurrentDecoderOnly) -> None:
    """The state is truncated after every check, of the model and of the one that guesses."""
    model, other = build(tree), build(TEXTS[0], seed=2)
    source = draw(1, 5)
    asked = DecodeRequest(first=[4], end_ids=frozenset({END}), steps=[25])
    with torch.no_grad():
        [[straight]] = greedy(model, source, None, asked, length_penalty=1.0)
        for drafting in (model, other):
            guessing = DraftModel(drafting, source, asked)
            steps = list(speculate(model, source, asked, guessing, guesses=3))
            said = [step[0].token for step in steps if step[0].token != END]
            assert said == straight.tokens


def test_a_runner_hands_every_step_to_the_modules(model) -> None:
    single = model.float()
    runner = Runner(single)
    assert not runner.prepare()
    source, lengths = source_of(single)
    own, other = single.start(source, lengths), runner.start(source, lengths)
    tokens = draw(4, 3)
    for at in range(3):
        assert torch.equal(runner.step(tokens[:, at : at + 1], other), single.step(tokens[:, at : at + 1], own))
