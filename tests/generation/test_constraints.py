"""Constraints against transformers' logits processors, one by one and inside its searches."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation import logits_process as theirs

import twins
from generation.fakes import LanguageTable, Table, decode_from
from laws.models import build
from sublayer import config
from sublayer.errors import InputError
from sublayer.generation.beam import beam_search
from sublayer.generation.constraints import (
    Allowed,
    Banned,
    Constraint,
    ForcedEnd,
    ForcedStart,
    LogitBias,
    MinLength,
    NoRepeatNGram,
    OccurrencePenalty,
    Renormalize,
    RepetitionPenalty,
    TokenHistory,
    constrain,
    constraints_of,
)
from sublayer.generation.greedy import greedy
from sublayer.generation.loop import most_probable
from sublayer.generation.request import DecodeRequest

V = 7
CPU = torch.device("cpu")

# A constraint of ours, and the same of theirs for a row whose prompt has so many tokens.
PAIRS: dict[str, tuple[Constraint, Any]] = {
    "penalty": (RepetitionPenalty(1.7), lambda prompt: theirs.RepetitionPenaltyLogitsProcessor(1.7)),
    "reward": (RepetitionPenalty(0.6), lambda prompt: theirs.RepetitionPenaltyLogitsProcessor(0.6)),
    **{
        f"{size}-gram": (NoRepeatNGram(size), lambda prompt, size=size: theirs.NoRepeatNGramLogitsProcessor(size))
        for size in (1, 2, 3, 4)
    },
    "banned": (Banned((2, 5)), lambda prompt: theirs.NoBadWordsLogitsProcessor([[2], [5]], [1])),
    "allowed": (
        Allowed((1, 4, 6)),
        lambda prompt: theirs.PrefixConstrainedLogitsProcessor(lambda row, said: [1, 4, 6], num_beams=1),
    ),
    "min-length": (
        MinLength(3, frozenset({1, 4})),
        lambda prompt: theirs.MinNewTokensLengthLogitsProcessor(prompt, 3, [1, 4]),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
@given(seed=st.integers(0, 10**6), lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4), new=st.integers(0, 12))
def test_against_transformers(name: str, seed: int, lengths: list[int], new: int) -> None:
    """Ragged prompts, of which transformers sees one at a time."""
    ours, oracle = PAIRS[name]
    draw = random.Random(seed)
    # Few tokens, so that they come again.
    prompts = [[draw.randrange(4) for _ in range(length)] for length in lengths]
    for prompt in prompts:
        prompt += [draw.randrange(4) for _ in range(new)]
    history = TokenHistory(prompts, [new] * len(prompts), CPU)
    logits = torch.randn(len(prompts), V, generator=torch.Generator().manual_seed(seed)) * 5
    before = logits.clone()
    found = ours(logits, history)
    assert torch.equal(logits, before), "a constraint is a function"
    for row, prompt in enumerate(prompts):
        expected = oracle(lengths[row])(torch.tensor([prompt]), logits[row : row + 1].clone())
        torch.testing.assert_close(found[row : row + 1], expected, rtol=1e-6, atol=0)


def test_forced_tokens_come_first_and_cost_nothing() -> None:
    logits = torch.randn(2, V)
    expected = theirs.ForcedBOSTokenLogitsProcessor(5)(torch.tensor([[0], [3]]), logits)
    forced = ForcedStart((5, 2))
    assert torch.equal(forced(logits, TokenHistory([[0], [3]], [0, 0], CPU)), expected)
    second = forced(logits, TokenHistory([[0, 5], [3, 5]], [1, 1], CPU))
    assert second.argmax(-1).tolist() == [2, 2]
    assert (second > float("-inf")).sum() == 2
    assert torch.equal(forced(logits, TokenHistory([[0, 5, 2], [3, 5, 2]], [2, 2], CPU)), logits)


EVERY = [
    RepetitionPenalty(1.7),
    NoRepeatNGram(2),
    Banned((1, 3)),
    MinLength(2, frozenset({0, 4})),
    Allowed((1, 2, 5)),
    ForcedStart((5, 2)),
    ForcedEnd(3, 6),
    LogitBias(((2, 4.0), (5, -3.0))),
    OccurrencePenalty(0.7, -0.4),
    Renormalize(),
]


@pytest.mark.parametrize("constraint", EVERY, ids=lambda one: type(one).__name__)
@given(
    seed=st.integers(0, 10**6),
    rows=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5)), min_size=1, max_size=5),
)
def test_rows_at_different_steps_are_constrained_as_each_alone(
    constraint, seed: int, rows: list[tuple[int, int]]
) -> None:
    """As in a running batch, where some texts have just begun."""
    draw = random.Random(seed)
    new = [count for _, count in rows]
    texts = [[draw.randrange(4) for _ in range(prompt + count)] for prompt, count in rows]
    logits = torch.randn(len(rows), V, generator=torch.Generator().manual_seed(seed)) * 5
    before = logits.clone()
    found = constraint(logits, TokenHistory(texts, new, CPU))
    assert torch.equal(logits, before), "a constraint is a function"
    for row, (text, count) in enumerate(zip(texts, new, strict=True)):
        assert torch.equal(found[row : row + 1], constraint(logits[row : row + 1], TokenHistory([text], [count], CPU)))


@given(seed=st.integers(0, 10**6), frequency=st.floats(-2, 2), presence=st.floats(-2, 2))
def test_what_was_said_is_penalized_as_openai_defines_it(seed: int, frequency: float, presence: float) -> None:
    draw = random.Random(seed)
    prompt, said = [draw.randrange(V) for _ in range(4)], [draw.randrange(3) for _ in range(draw.randint(0, 6))]
    logits = torch.randn(1, V, generator=torch.Generator().manual_seed(seed))
    biased = LogitBias(((1, 2.5), (4, -100.0)))(logits, TokenHistory([prompt], [0], CPU))
    found = OccurrencePenalty(frequency, presence)(biased, TokenHistory([[*prompt, *said]], [len(said)], CPU))
    for token in range(V):
        expected = logits[0, token].item() + {1: 2.5, 4: -100.0}.get(token, 0.0)
        expected -= frequency * said.count(token) + presence * (token in said)
        assert found[0, token].item() == pytest.approx(expected, abs=1e-4)


def test_the_configuration_makes_the_constraints_in_transformers_order() -> None:
    everything = config.Constraints(
        repetition_penalty=1.2, no_repeat_ngram=2, min_length=3, banned=(4,), allowed=(1, 4, 4, 2), forced=(2,)
    )
    ends = frozenset({1, 99})
    assert constraints_of(everything, ends, V) == (
        RepetitionPenalty(1.2),
        NoRepeatNGram(2),
        Banned((4,)),
        MinLength(3, frozenset({1})),
        Allowed((1, 4, 2)),
        ForcedStart((2,)),
    )
    assert constraints_of(config.Constraints(), ends, V) == ()
    with pytest.raises(InputError, match=r"constraints\.banned holds 7, but the vocabulary is 0 to 6"):
        constraints_of(config.Constraints(banned=(3, 7)), ends, V)


def test_where_nothing_is_left_the_search_says_so() -> None:
    constraints = (Allowed((2,)), Banned((2,)))
    request = DecodeRequest([0], frozenset({1}), [4])
    source = torch.tensor([[3]])
    for search in (
        lambda: greedy(Table(5, 0), source, None, request, constraints=constraints),
        lambda: beam_search(Table(5, 0), source, None, request, beam=2, length_penalty=1.0, constraints=constraints),
    ):
        with pytest.raises(InputError, match="leave no token"):
            search()


# --- inside transformers' searches -------------------------------------------------------------------------------

OPTIONS: dict[str, tuple[tuple[Constraint, ...], dict[str, Any]]] = {
    "summary": (
        (NoRepeatNGram(2), MinLength(5, frozenset({2})), ForcedStart((7,))),
        {"no_repeat_ngram_size": 2, "min_new_tokens": 5, "forced_bos_token_id": 7},
    ),
    "penalized": (
        (RepetitionPenalty(1.6), Banned((4, 5, 6))),
        {"repetition_penalty": 1.6, "bad_words_ids": [[4], [5], [6]]},
    ),
    "vocabulary": (
        (Allowed((2, 5, 8, 9, 10)),),
        {"prefix_allowed_tokens_fn": lambda row, said: [2, 5, 8, 9, 10]},
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("seed", range(2))
def test_searches_against_transformers(name: str, beam: int, seed: int) -> None:
    """15 ragged sentences: what is found, best first, with its scores."""
    pad, start, end, limit = 0, 1, 2, 10
    constraints, options = OPTIONS[name]
    model = build(twins.tree(vocab_size=19), dtype=torch.float32, seed=seed)
    marian = twins.marian(model, start=start, end=end, pad=pad)
    draw = random.Random(seed)
    lengths = torch.tensor([draw.randint(1, 10) for _ in range(15)])
    source = torch.tensor([[draw.randrange(3, 19) for _ in range(10)] for _ in lengths])
    real = torch.arange(10) < lengths[:, None]
    expected = marian.generate(
        input_ids=source.where(real, pad),
        attention_mask=real.long(),
        num_beams=beam,
        num_return_sequences=beam,
        do_sample=False,
        max_new_tokens=limit,
        return_dict_in_generate=True,
        output_scores=True,
        **({"early_stopping": True, "length_penalty": 1.0} if beam > 1 else {}),
        **options,
    )
    request = DecodeRequest([start] * 15, frozenset({end}), [limit] * 15)
    with torch.no_grad():
        if beam == 1:
            ours = greedy(model, source, lengths, request, constraints=constraints)
        else:
            ours = beam_search(model, source, lengths, request, beam=beam, length_penalty=1.0, constraints=constraints)
            plain = beam_search(model, source, lengths, request, beam=beam, length_penalty=1.0)
            assert [one[0].tokens for one in ours] != [one[0].tokens for one in plain]
    for row, hypotheses in enumerate(ours):
        for rank, hypothesis in enumerate(hypotheses):
            sequence = expected.sequences[beam * row + rank].tolist()[1:]
            complete = end in sequence
            assert hypothesis.tokens == (sequence[: sequence.index(end)] if complete else sequence)
            assert hypothesis.complete == complete
            if beam > 1:
                score = expected.sequences_scores[beam * row + rank].item()
                assert hypothesis.score == pytest.approx(score, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("beam", [1, 3])
def test_log_probabilities_are_the_models_own(beam: int) -> None:
    """Before any constraint, one for each token and for the end."""
    table = LanguageTable(9, 4, end_bias=1.0)
    request = DecodeRequest([3, 2], frozenset({1, 8}), [6, 9], [[5], [4]])
    constraints = (RepetitionPenalty(2.0), NoRepeatNGram(2), MinLength(2, request.end_ids), ForcedStart((6,)))
    source = torch.tensor(request.before)
    if beam == 1:
        found = greedy(table, source, None, request, constraints=constraints)
    else:
        found = beam_search(table, source, None, request, beam=beam, length_penalty=1.0, constraints=constraints)
    for row, hypotheses in enumerate(found):
        for hypothesis in hypotheses:
            text, gains = tuple(request.prompts[row]), hypothesis.log_probabilities
            assert len(gains) == len(hypothesis.tokens) + hypothesis.complete
            for token, gain in zip(hypothesis.tokens, gains):
                assert gain == pytest.approx(table.after(text).log_softmax(-1)[token].item(), abs=1e-5)
                text = (*text, token)
            if hypothesis.complete:
                ends = table.after(text).log_softmax(-1)[sorted(request.end_ids)].tolist()
                assert min(abs(gains[-1] - one) for one in ends) < 1e-5
            assert hypothesis.log_probability == pytest.approx(sum(gains))


@pytest.mark.parametrize("seed", range(5))
def test_constrained_batches_are_their_rows(seed: int) -> None:
    """Rows leave the batch at different times, and what was said goes with those that stay."""
    table = LanguageTable(6, seed, end_bias=0.7)
    before = [[2], [4, 4], [3, 2, 5], [0]]
    steps = [9, 3, 12, 6]
    constraints = (RepetitionPenalty(1.5), NoRepeatNGram(2))
    request = DecodeRequest([5, 4, 3, 2], frozenset({1}), steps, before)
    source = torch.tensor([row + [0] * (3 - len(row)) for row in before])
    lengths = torch.tensor([len(row) for row in before])
    alone = [(torch.tensor([row]), request.of(place)) for place, row in enumerate(before)]
    together = greedy(table, source, lengths, request, constraints=constraints)
    assert together == [greedy(table, row, None, own, constraints=constraints)[0] for row, own in alone]
    beams = {"beam": 3, "length_penalty": 1.0, "constraints": constraints}
    together = beam_search(table, source, lengths, request, **beams)
    assert together == [beam_search(table, row, None, own, **beams)[0] for row, own in alone]


def test_no_constraint_changes_nothing() -> None:
    logits = torch.randn(2, V)
    assert constrain(logits, (), None) is logits
    table = LanguageTable(6, 0)
    request = DecodeRequest([2], frozenset({1}), [5], [[3]])
    penalty = constraints_of(config.Constraints(min_length=1), frozenset(), 6)
    assert penalty == ()
    steps = list(decode_from(table, torch.tensor([[3]]), None, request, most_probable, scored=False))
    assert all([chosen.log_probability for chosen in step.values()] == [0.0] for step in steps)
