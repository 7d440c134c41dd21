"""Beam search against every sequence there is, against a plain beam search, and against transformers'."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import twins
from generation.fakes import Table, all_hypotheses, assert_same, plain_beam, request_of, scorer_of
from laws.models import CONFIGS, ROWS, build
from sublayer.generation.beam import beam_search
from sublayer.generation.greedy import greedy
from sublayer.generation.request import Hypothesis
from sublayer.models import EncoderDecoder

START, END = 0, 1


def search(
    model: Table | EncoderDecoder,
    sources: list[list[int]],
    steps: list[int],
    *,
    beam: int,
    penalty: float = 1.0,
    start: int = START,
    end: int = END,
) -> list[list[Hypothesis]]:
    """Beam search over ragged sources."""
    width = max(map(len, sources))
    padded = torch.tensor([row + [0] * (width - len(row)) for row in sources])
    lengths = torch.tensor([len(row) for row in sources])
    with torch.no_grad():
        return beam_search(model, padded, lengths, request_of(start, end, steps), beam=beam, length_penalty=penalty)


# --- a beam that holds everything: exact -------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize(("vocab_size", "limit"), [(4, 4), (5, 3), (2, 4), (3, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_that_holds_everything_finds_everything_in_order(
    vocab_size: int, limit: int, penalty: float, seed: int
) -> None:
    table = Table(vocab_size, seed)
    expected = all_hypotheses(table.scorer((5, 6)), start=START, end=END, limit=limit, penalty=penalty)
    (found,) = search(table, [[5, 6]], [limit], beam=len(expected), penalty=penalty)
    assert_same(found, expected)


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_transformer_with_a_beam_that_holds_everything(seed: int, penalty: float) -> None:
    model = build(twins.tree(vocab_size=4), dtype=torch.float32, seed=seed)
    source = [2, 3, 0, 3]
    expected = all_hypotheses(scorer_of(model, torch.tensor([source])), start=START, end=END, limit=3, penalty=penalty)
    (found,) = search(model, [source], [3], beam=len(expected), penalty=penalty)
    assert_same(found, expected)


# --- any beam: the documented rules ------------------------------------------------------------------------------


@given(
    vocab_size=st.integers(2, 9),
    seed=st.integers(0, 10**6),
    end_bias=st.sampled_from([-2.0, 0.0, 2.0]),
    beam=st.integers(1, 6),
    steps=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    penalty=st.sampled_from([0.0, 0.6, 1.0, 2.0]),
)
def test_against_a_plain_beam_search(
    vocab_size: int, seed: int, end_bias: float, beam: int, steps: list[int], penalty: float
) -> None:
    """Ragged batches, limits of their own, sentences that end at different times, vocabularies below 2 * beam."""
    table = Table(vocab_size, seed, end_bias=end_bias)
    sources = [[seed % 7] * (1 + index % 3) + [index] for index in range(len(steps))]
    found = search(table, sources, steps, beam=beam, penalty=penalty)
    for row, source in enumerate(sources):
        score = table.scorer(tuple(source))
        expected = plain_beam(score, start=START, end=END, limit=steps[row], beam=beam, penalty=penalty)
        assert_same(found[row], expected)


# Without positions, or with a window, translations that are one another's permutation tie, and either may come first.
UNTIED = [index for index, row in enumerate(ROWS) if row["decoder_position"] != "none" and row["window"] is None]


@pytest.mark.parametrize("index", UNTIED)
@pytest.mark.parametrize("beam", [2, 4])
def test_transformers_of_all_kinds_against_a_plain_beam_search(index: int, beam: int) -> None:
    """With the cache, shared sources, reordering and dropping, against a full forward pass for every prefix."""
    model = build(CONFIGS[index], dtype=torch.float32, seed=index)
    draw = random.Random(index)
    sources = [[draw.randrange(17) for _ in range(draw.randint(1, 8))] for _ in range(4)]
    steps = [draw.randint(3, 8) for _ in sources]
    end = _frequent_token(model, sources, steps)
    found = search(model, sources, steps, beam=beam, end=end)
    for row, source in enumerate(sources):
        score = scorer_of(model, torch.tensor([source]))
        assert_same(found[row], plain_beam(score, start=START, end=end, limit=steps[row], beam=beam, penalty=1.0))


def _frequent_token(model: EncoderDecoder, sources: list[list[int]], steps: list[int]) -> int:
    """A token that greedy search says in the middle of the first sentence, so that something ends before its limit."""
    (said,) = search(model, sources[:1], steps[:1], beam=1, end=-1)[0]
    return said.tokens[len(said.tokens) // 2]


@pytest.mark.parametrize("seed", range(20))
def test_a_beam_of_one_is_greedy(seed: int) -> None:
    table = Table(6, seed)
    source, lengths = torch.tensor([[1, 2], [3, 4], [5, 0]]), torch.tensor([2, 2, 1])
    request = request_of(START, END, [6, 3, 9])
    one = beam_search(table, source, lengths, request, beam=1, length_penalty=0.6)
    for found, expected in zip(one, greedy(table, source, lengths, request, length_penalty=0.6), strict=True):
        assert_same(found, expected)


@pytest.mark.parametrize("seed", range(10))
def test_a_batch_is_its_sentences(seed: int) -> None:
    model = build(twins.tree(), dtype=torch.float32, seed=seed)
    draw = random.Random(seed)
    sources = [[draw.randrange(23) for _ in range(draw.randint(1, 12))] for _ in range(7)]
    steps = [draw.randint(1, 16) for _ in sources]
    end = _frequent_token(model, sources, steps)
    batch = search(model, sources, steps, beam=4, end=end)
    for row, source in enumerate(sources):
        assert_same(batch[row], search(model, [source], [steps[row]], beam=4, end=end)[0])


# --- what a translation says of itself ---------------------------------------------------------------------------


@given(
    seed=st.integers(0, 10**6),
    end_bias=st.sampled_from([-3.0, 0.0, 3.0]),
    beam=st.integers(1, 5),
    steps=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    penalty=st.sampled_from([0.0, 0.6, 1.0]),
)
def test_what_a_hypothesis_says_is_true(
    seed: int, end_bias: float, beam: int, steps: list[int], penalty: float
) -> None:
    table = Table(5, seed, end_bias=end_bias)
    sources = [[index, 2] for index in range(len(steps))]
    results = search(table, sources, steps, beam=beam, penalty=penalty)
    for source, limit, hypotheses in zip(sources, steps, results, strict=True):
        score = table.scorer(tuple(source))
        assert 1 <= len(hypotheses) <= beam
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)
        assert len({(tuple(h.tokens), h.complete) for h in hypotheses}) == len(hypotheses), "found twice"
        for hypothesis in hypotheses:
            out = hypothesis.tokens + [END] * hypothesis.complete
            assert len(out) <= limit
            assert hypothesis.complete or len(out) == limit, "cut short before its limit"
            assert END not in hypothesis.tokens
            total = sum(score((START, *out[:at]))[token] for at, token in enumerate(out))
            assert hypothesis.log_probability == pytest.approx(total, rel=1e-5, abs=1e-5)
            assert hypothesis.score == pytest.approx(total / len(out) ** penalty, rel=1e-5, abs=1e-5)


def test_a_limit_of_one() -> None:
    """One token each: the best are the most probable tokens, and the end is an empty translation."""
    table = Table(6, 3, end_bias=1.0)
    scores = table.scorer((4,))((START,))
    best = sorted(range(6), key=lambda token: -scores[token])[:3]
    (found,) = search(table, [[4]], [1], beam=3)
    assert [h.tokens for h in found] == [[] if token == END else [token] for token in best]
    assert [h.complete for h in found] == [token == END for token in best]
    assert table.steps == 1


def test_a_finished_batch_is_not_computed_further() -> None:
    table = Table(5, 0, end_bias=50.0)
    search(table, [[1], [2]], [100, 50], beam=1)
    assert table.steps == 1


def test_a_larger_beam_finds_what_greedy_misses() -> None:
    """The garden path: the best first token leads nowhere good."""
    first = {2: 0.6, 3: 0.4}
    then = {2: {4: 0.5, 5: 0.5}, 3: {4: 0.95, 5: 0.05}}

    class Garden(Table):
        def logits(self, source: tuple[int, ...], prefix: tuple[int, ...]) -> list[float]:
            table = first if len(prefix) == 1 else then[prefix[1]] if len(prefix) == 2 else {END: 1.0}
            return [float(torch.tensor(table.get(token, 1e-9)).log()) for token in range(6)]

    (one,), (two,) = (search(Garden(6, 0), [[1]], [5], beam=beam) for beam in (1, 2))
    assert one[0].tokens[0] == 2
    assert two[0].tokens == [3, 4]
    assert two[0].log_probability > one[0].log_probability


def test_a_length_penalty_favours_longer_translations() -> None:
    """log P / length ** alpha: without it the sum decides, which is never better for being longer."""

    class Steady(Table):
        """The end with 0.3 at once, with 0.6 later."""

        def logits(self, source: tuple[int, ...], prefix: tuple[int, ...]) -> list[float]:
            end = 0.3 if len(prefix) == 1 else 0.6
            return [float(torch.tensor(p).log()) for p in (1e-9, end, 1 - end - 2e-9, 1e-9)]

    (none,), (full,) = (search(Steady(4, 0), [[1]], [6], beam=3, penalty=penalty) for penalty in (0.0, 3.0))
    assert none[0].tokens == [2]
    assert full[0].tokens == [2, 2]


# --- transformers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_against_transformers(seed: int, penalty: float) -> None:
    """20 ragged sentences a model and penalty: the four best translations, in order, with their scores."""
    pad, start, end, limit = 0, 1, 2, 12
    model = build(twins.tree(vocab_size=19), dtype=torch.float32, seed=seed)
    marian = twins.marian(model, start=start, end=end, pad=pad)
    draw = random.Random(seed)
    sources = [[draw.randrange(3, 19) for _ in range(draw.randint(1, 10))] for _ in range(20)]
    width = max(map(len, sources))
    padded = torch.tensor([row + [pad] * (width - len(row)) for row in sources])
    theirs = marian.generate(
        input_ids=padded,
        attention_mask=(torch.arange(width) < torch.tensor([[len(row)] for row in sources])).long(),
        num_beams=4,
        num_return_sequences=4,
        do_sample=False,
        early_stopping=True,
        length_penalty=penalty,
        max_new_tokens=limit,
        return_dict_in_generate=True,
        output_scores=True,
    )
    ours = search(model, sources, [limit] * len(sources), beam=4, penalty=penalty, start=start, end=end)
    ended = 0
    for row, hypotheses in enumerate(ours):
        for rank, hypothesis in enumerate(hypotheses):
            sequence = theirs.sequences[4 * row + rank].tolist()[1:]
            complete = end in sequence
            expected = sequence[: sequence.index(end)] if complete else sequence
            ended += complete
            assert (hypothesis.tokens, hypothesis.complete) == (expected, complete)
            score = theirs.sequences_scores[4 * row + rank].item()
            assert hypothesis.score == pytest.approx(score, rel=1e-5, abs=1e-5)
    assert ended > 20, "too few translations ended for this to say anything of ends"
