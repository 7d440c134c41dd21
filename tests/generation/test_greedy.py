"""Greedy search against a plain one, and against transformers'."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import twins
from generation.fakes import Table, assert_same, plain_greedy, request_of, scorer_of
from laws.models import CONFIGS, build
from sublayer.generation.beam import beam_search
from sublayer.generation.greedy import greedy

START, END = 0, 1


@given(
    vocab_size=st.integers(2, 9),
    seed=st.integers(0, 10**6),
    order=st.sampled_from([None, 1]),
    end_bias=st.sampled_from([-2.0, 0.0, 2.0]),
    steps=st.lists(st.integers(1, 7), min_size=1, max_size=6),
)
def test_against_a_plain_greedy_search(
    vocab_size: int, seed: int, order: int | None, end_bias: float, steps: list[int]
) -> None:
    table = Table(vocab_size, seed, order=order, end_bias=end_bias)
    sources = torch.tensor([[seed % 7, index] for index in range(len(steps))])
    found = greedy(table, sources, None, request_of(START, END, steps))
    for row, source in enumerate(sources.tolist()):
        expected = plain_greedy(table.scorer(tuple(source)), start=START, end=END, limit=steps[row])
        assert_same(found[row], [expected])
    longest = max(len(hypothesis.tokens) + hypothesis.complete for (hypothesis,) in found)
    assert table.steps == longest, "stepped on after everything had ended"


@pytest.mark.parametrize("index", range(0, len(CONFIGS), 4))
def test_transformers_of_all_kinds(index: int) -> None:
    model = build(CONFIGS[index], dtype=torch.float32, seed=index)
    draw = random.Random(index)
    lengths = [draw.randint(1, 8) for _ in range(4)]
    source = torch.tensor([[draw.randrange(17) for _ in range(max(lengths))] for _ in lengths])
    steps = [draw.randint(1, 9) for _ in lengths]
    with torch.no_grad():
        found = greedy(model, source, torch.tensor(lengths), request_of(START, END, steps))
    for row, length in enumerate(lengths):
        score = scorer_of(model, source[row : row + 1, :length])
        assert_same(found[row], [plain_greedy(score, start=START, end=END, limit=steps[row])])


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_length_penalty_enters_the_score_alone(penalty: float) -> None:
    table = Table(5, 4)
    source, request = torch.tensor([[2, 3], [3, 4]]), request_of(START, END, [5, 8])
    for (found,) in greedy(table, source, None, request, length_penalty=penalty):
        length = len(found.tokens) + found.complete
        assert found.score == pytest.approx(found.log_probability / length**penalty)


@pytest.mark.parametrize("beam", [None, 2])
def test_no_gradient_is_recorded(beam: int | None) -> None:
    """Called directly, on a model in training."""
    model = build(CONFIGS[0], dtype=torch.float32, seed=0).train()
    recorded: list[bool] = []
    model.logits.register_forward_hook(lambda _module, _inputs, logits: recorded.append(logits.requires_grad))
    source, request = torch.tensor([[2, 3, 4]]), request_of(START, -1, [4])
    if beam is None:
        greedy(model, source, None, request)
    else:
        beam_search(model, source, None, request, beam=beam, length_penalty=1.0)
    assert len(recorded) >= 4
    assert not any(recorded)
    assert torch.is_grad_enabled()
    assert model(source, None, source).requires_grad


def test_against_transformers() -> None:
    """60 ragged sentences."""
    pad, start, limit = 0, 1, 12
    model = build(twins.tree(vocab_size=19), dtype=torch.float32, seed=5)
    draw = random.Random(5)
    lengths = torch.tensor([draw.randint(1, 10) for _ in range(60)])
    source = torch.tensor([[draw.randrange(3, 19) for _ in range(10)] for _ in lengths])
    real = torch.arange(10) < lengths[:, None]
    with torch.no_grad():
        endless = greedy(model, source, lengths, request_of(start, -1, [limit] * 60))
        # A token that comes up in many translations, so that ends are compared too.
        end = Counter(token for (found,) in endless for token in {*found.tokens} - {pad, start}).most_common(3)[2][0]
        ours = greedy(model, source, lengths, request_of(start, end, [limit] * 60))
    marian = twins.marian(model, start=start, end=end, pad=pad)
    theirs = marian.generate(
        input_ids=source.where(real, pad),
        attention_mask=real.long(),
        num_beams=1,
        do_sample=False,
        max_new_tokens=limit,
    )
    for (found,), row in zip(ours, theirs.tolist(), strict=True):
        tokens = row[1:]
        complete = end in tokens
        assert (found.tokens, found.complete) == (tokens[: tokens.index(end)] if complete else tokens, complete)
    assert 10 < sum(found.complete for (found,) in ours) < 60
