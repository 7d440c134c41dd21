"""The loop as a stream: what it yields at each step, who ends when and why."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from generation.fakes import LanguageTable, decode_from, plain_greedy
from sublayer.generation.greedy import greedy
from sublayer.generation.loop import most_probable
from sublayer.generation.request import DecodeRequest


@given(
    seed=st.integers(0, 10**6),
    ends=st.frozensets(st.integers(0, 6), max_size=3),
    steps=st.lists(st.integers(1, 8), min_size=1, max_size=5),
    samples=st.integers(1, 3),
    stop=st.integers(0, 6),
)
def test_every_row_says_its_own_and_ends_when_it_should(
    seed: int, ends: frozenset[int], steps: list[int], samples: int, stop: int
) -> None:
    """Against each row alone, searched plainly; all samples are greedy, and some are stopped from outside."""
    table = LanguageTable(7, seed)
    before = [[2 + row % 3] * (row % 4) for row in range(len(steps))]
    request = DecodeRequest([row % 7 for row in range(len(steps))], ends, steps, before)
    source = torch.tensor([row + [0] * (3 - len(row)) for row in before])

    def stopped(row: int, token: int) -> bool:
        assert token not in ends
        return row % 2 == 1 and token == stop

    said: list[list[int]] = [[] for _ in range(len(steps) * samples)]
    endings: list[str | None] = [None for _ in said]
    lengths = torch.tensor([len(row) for row in before])
    for step in decode_from(table, source, lengths, request, most_probable, samples=samples, stopped=stopped):
        assert list(step) == [row for row, ending in enumerate(endings) if ending is None]
        for row, chosen in step.items():
            said[row].append(chosen.token)
            endings[row] = chosen.ending
    for row, tokens in enumerate(said):
        sentence = row // samples
        text = (*before[sentence], request.first[sentence])
        for number, token in enumerate(tokens):
            assert token == int(table.after(text).argmax())
            text = (*text, token)
            wanted = None
            if token in ends:
                wanted = "end"
            elif row % 2 == 1 and token == stop:
                wanted = "stop"
            elif number + 1 == steps[sentence]:
                wanted = "length"
            assert (wanted is None) == (number + 1 < len(tokens))
        assert endings[row] == wanted
    assert table.steps == max(map(len, said)), "stepped on after everything had ended"


def test_it_goes_no_further_than_it_is_asked() -> None:
    table = LanguageTable(7, 0)
    steps = decode_from(table, torch.tensor([[3]]), None, DecodeRequest([2], frozenset(), [50], [[3]]), most_probable)
    next(steps)
    next(steps)
    assert table.steps == 2


def test_a_prompt_of_one_token_starts_with_nothing() -> None:
    table = LanguageTable(7, 3)
    request = DecodeRequest([2, 4], frozenset({1}), [5, 5])
    found = greedy(table, torch.empty(2, 0, dtype=torch.int64), None, request)
    for first, [hypothesis] in zip(request.first, found):
        expected = plain_greedy(lambda text: table.after(text).log_softmax(-1).tolist(), start=first, end=1, limit=5)
        assert (hypothesis.tokens, hypothesis.complete) == (expected.tokens, expected.complete)
