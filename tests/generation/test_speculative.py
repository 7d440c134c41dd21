"""Speculative decoding against plain decoding: the same greedy text, the same distribution of samples."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import twins
from generation.distributions import chi_square_p, shifted
from generation.fakes import LanguageTable
from laws.models import CONFIGS, ROWS, build
from sublayer import config
from sublayer.errors import InputError
from sublayer.generation import speculative
from sublayer.generation.constraints import Allowed, Banned, Constraint, MinLength, NoRepeatNGram, RepetitionPenalty
from sublayer.generation.greedy import greedy
from sublayer.generation.randomness import Uniforms, stream
from sublayer.generation.request import DecodeRequest, Hypothesis
from sublayer.generation.speculative import Drafter, DraftModel, Guess, PromptLookup, speculate


def collected(steps: Any) -> Hypothesis:
    tokens, gains, complete = [], [], False
    for step in steps:
        [chosen] = step.values()
        gains.append(chosen.log_probability)
        complete = chosen.ending == "end"
        tokens += [] if complete else [chosen.token]
    return Hypothesis(tokens, sum(gains), sum(gains), complete, gains)


# --- greedy ------------------------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 10**6),
    likeness=st.sampled_from([0.0, 0.5, 0.8, 1.0]),
    guesses=st.integers(1, 6),
    limit=st.integers(1, 20),
    prompt=st.lists(st.integers(0, 5), min_size=1, max_size=6),
    ends=st.frozensets(st.integers(0, 5), max_size=2),
    kind=st.sampled_from(["draft", "lookup"]),
    constraints=st.sampled_from(
        [(), (RepetitionPenalty(1.4), NoRepeatNGram(3), Banned((2,)), MinLength(4, frozenset({1})))]
    ),
)
def test_greedy_texts_are_the_plain_ones(
    seed: int,
    likeness: float,
    guesses: int,
    limit: int,
    prompt: list[int],
    ends: frozenset[int],
    kind: str,
    constraints: Sequence[Constraint],
) -> None:
    """With drafts that are mostly wrong, mostly right, and always right."""
    model = LanguageTable(6, seed, order=2)
    draft = LanguageTable(6, seed + 1, order=3, near=model, likeness=likeness)
    source, request = (
        torch.tensor([prompt[:-1]], dtype=torch.int64),
        DecodeRequest(prompt[-1:], ends, [limit], [prompt[:-1]]),
    )
    [[expected]] = greedy(model, source, None, request, constraints=constraints)
    plain, model.steps = model.steps, 0
    drafter: Drafter = PromptLookup() if kind == "lookup" else DraftModel(draft, source, request)
    found = collected(speculate(model, source, request, drafter, guesses=guesses, constraints=constraints))
    assert (found.tokens, found.complete) == (expected.tokens, expected.complete)
    assert found.log_probabilities == pytest.approx(expected.log_probabilities, abs=1e-5)
    assert model.steps <= plain
    if kind == "draft" and likeness == 1.0 and not constraints:
        assert model.steps == -(-plain // (guesses + 1)), "a draft that is always right saves all that it can"


def test_drafts_are_right_and_wrong_by_turns() -> None:
    """What the tests above try is neither all kept nor all refused."""
    kept: Counter[int] = Counter()
    for seed in range(40):
        model = LanguageTable(6, seed, order=2)
        draft = LanguageTable(6, seed + 1, order=3, near=model, likeness=0.5)
        source, request = torch.tensor([[3, 2]]), DecodeRequest([4], frozenset(), [20], [[3, 2]])
        texts = collected(speculate(model, source, request, DraftModel(draft, source, request), guesses=3)).tokens
        assert len(texts) == 20
        kept[model.steps] += 1
    assert min(kept) < 12
    assert max(kept) > 8
    assert len(kept) > 4


ORDINARY = [index for index, row in enumerate(ROWS) if row["decoder_position"] != "none"][::3]


@pytest.mark.parametrize("index", ORDINARY)
def test_transformers_of_all_kinds(index: int) -> None:
    """Caches that go back, of the model and of the draft; in float64, so that nothing ties."""
    model = build(CONFIGS[index], seed=index)
    draft = build(twins.tree(vocab_size=17), seed=index)
    source, request = torch.randint(17, (1, 7)), DecodeRequest([3], frozenset({5}), [14])
    with torch.no_grad():
        [[expected]] = greedy(model, source, None, request)
        for drafter in (DraftModel(draft, source, request), DraftModel(model, source, request), PromptLookup()):
            found = collected(speculate(model, source, request, drafter, guesses=3))
            assert (found.tokens, found.complete) == (expected.tokens, expected.complete)
            assert found.log_probabilities == pytest.approx(expected.log_probabilities, abs=1e-5)


# --- sampling ----------------------------------------------------------------------------------------------------

SAMPLING = config.Sampling(temperature=3.0, top_k=3)
PROMPT = [2, 3, 0, 2]
REQUEST = DecodeRequest(PROMPT[-1:], frozenset({1}), [2], [PROMPT[:-1]])
SOURCE = torch.tensor([PROMPT[:-1]])


def plain_distribution(model: LanguageTable) -> dict[tuple[int, ...], float]:
    """Of texts of two tokens, or of the end alone."""

    def after(text: list[int]) -> list[float]:
        return SAMPLING.process_logits(model.after(tuple(text)).unsqueeze(0))[0].double().softmax(-1).tolist()

    found: dict[tuple[int, ...], float] = {}
    for token, probability in enumerate(after(PROMPT)):
        if token == 1:
            found[(1,)] = probability
            continue
        found |= {(token, other): probability * another for other, another in enumerate(after([*PROMPT, token]))}
    return found


def sampled(model: LanguageTable, kind: str, count: int) -> Counter[tuple[int, ...]]:
    draft = LanguageTable(4, 9, order=2, near=model, likeness=0.4)
    outcomes: Counter[tuple[int, ...]] = Counter()
    for number in range(count):
        own = stream(3, number)
        drafter: Drafter = PromptLookup()
        if kind == "draft":
            drafter = DraftModel(draft, SOURCE, REQUEST, sampling=SAMPLING, uniforms=Uniforms(stream(own, 1)))
        uniforms = Uniforms(stream(own, 0))
        steps = speculate(model, SOURCE, REQUEST, drafter, sampling=SAMPLING, uniforms=uniforms, scored=False)
        outcomes[tuple(step[0].token for step in steps)] += 1
    return outcomes


COUNT = 4500


@pytest.fixture
def model() -> LanguageTable:
    return LanguageTable(4, 10, order=2)


@pytest.mark.parametrize("kind", ["draft", "lookup"])
def test_samples_have_the_plain_distribution(model: LanguageTable, kind: str) -> None:
    """A test that sees two in a hundred: that much moved from one text to another would fail it."""
    expected = plain_distribution(model)
    assert chi_square_p(sampled(model, kind, COUNT), expected) > 1e-2
    wrong = {outcome: probability * COUNT for outcome, probability in shifted(expected, 0.02).items()}
    assert chi_square_p(wrong, expected) < 1e-2


def kept_where_possible(offered: Any, guess: Guess, sampling: Any, uniforms: Any) -> tuple[int, int]:
    for place, token in enumerate(guess.tokens):
        if offered[place, token] == float("-inf"):
            return place, speculative._choice(offered[place : place + 1], sampling, uniforms)
    return len(guess.tokens), speculative._choice(offered[-1:], sampling, uniforms)


def redrawn_from_the_whole(offered: Any, guess: Guess, sampling: Any, uniforms: Any) -> tuple[int, int]:
    """What replaces a guess is drawn from p, not from what p has more than q."""
    for place, token in enumerate(guess.tokens):
        p, q = (each[place].double().softmax(-1)[token].item() for each in (offered, guess.logits))
        if uniforms.next() * q >= p:
            return place, speculative._choice(offered[place : place + 1], sampling, uniforms)
    return len(guess.tokens), speculative._choice(offered[-1:], sampling, uniforms)


@pytest.mark.parametrize("fault", [kept_where_possible, redrawn_from_the_whole])
def test_the_test_finds_faults(model: LanguageTable, fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speculative, "_checked", fault)
    assert chi_square_p(sampled(model, "draft", COUNT // 4), plain_distribution(model)) < 1e-4


# --- who guesses -------------------------------------------------------------------------------------------------


@given(said=st.lists(st.integers(0, 3), min_size=1, max_size=20), longest=st.integers(1, 4), count=st.integers(0, 5))
def test_prompt_lookup_against_a_plain_search(said: list[int], longest: int, count: int) -> None:
    expected: list[int] = []
    for size in range(longest, 0, -1):
        starts = [at for at in range(len(said) - size) if said[at : at + size] == said[len(said) - size :]]
        if starts and size < len(said):
            expected = said[starts[-1] + size :][:count]
            break
    found = PromptLookup(longest).guess(said, count)
    assert found.tokens == expected
    assert found.logits is None


def test_a_draft_model_goes_back_and_on() -> None:
    """Whatever it is told was said, its guesses are those of a fresh one."""
    draw = random.Random(0)
    model = LanguageTable(6, 3)
    source, request = torch.tensor([[2, 5]]), DecodeRequest([4], frozenset(), [30], [[2, 5]])
    drafter = DraftModel(model, source, request)
    said = [2, 5, 4]
    for _ in range(60):
        guess = drafter.guess(said, draw.randint(0, 4))
        text = list(said)
        for token in guess.tokens:
            assert token == int(model.after(tuple(text)).argmax())
            text.append(token)
        said = text[: draw.randint(3, len(text))] + [draw.randrange(6) for _ in range(draw.randint(0, 2))]
        said = said[:25]


def test_it_says_where_nothing_is_left() -> None:
    model = LanguageTable(4, 0)
    for sampling in (None, SAMPLING):
        steps = speculate(
            model,
            SOURCE,
            REQUEST,
            PromptLookup(),
            sampling=sampling,
            uniforms=Uniforms(0),
            constraints=(Allowed((0,)), Banned((0,))),
        )
        with pytest.raises(InputError, match="leave no token"):
            next(steps)
