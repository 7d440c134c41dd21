"""Scores of heads: against the definitions counted out one weight at a time, and on attention made by hand."""

from __future__ import annotations

import math

import pytest
import torch

from inspection.three_shapes import HEADS, MAKERS, VOCABULARY, decoder_only, encoder_decoder, encoder_only
from sublayer.errors import InputError
from sublayer.inspection.editing import edit
from sublayer.inspection.examples import IGNORE, Example
from sublayer.inspection.groups import groups
from sublayer.inspection.heads import head_scores
from sublayer.inspection.recording import record

SPECIAL = {0, 1, 2, 3}
START, END = 1, 2


def _texts(seed: int = 3, repeats: bool = True) -> list[list[int]]:
    draw = torch.Generator().manual_seed(seed)
    # Few kinds of token, so that many are seen twice.
    high = 8 if repeats else VOCABULARY
    return [torch.randint(4, high, (size,), generator=draw).tolist() for size in (9, 5, 12, 1)]


def examples(shape: str) -> list[Example]:
    texts = _texts()
    if shape == "decoder-only":
        return [Example((START, *ids), wanted=(*ids, IGNORE)) for ids in texts]
    if shape == "encoder-only":
        return [Example((START, *ids, END)) for ids in texts]
    return [
        Example((*ids, END), fed=(START, *target), wanted=(*target, END))
        for ids, target in zip(texts, [[*t[::-1], 5] for t in texts], strict=True)
    ]


def _one(model, example):
    """One text alone, through the model's own front door."""
    tokens = torch.tensor([example.tokens])
    if example.fed:
        return model(tokens, None, torch.tensor([example.fed]))
    return model(tokens)


def _brute(group, layer: int, head: int, model, some, links) -> dict[str, float]:
    """For each query that has such a key: how much of its attention goes there, on average."""
    totals: dict[str, list[float]] = {}
    for number, example in enumerate(some):
        tap = group.taps("weights")[layer]
        with torch.no_grad(), record(model, tap) as seen:
            _one(model, example)
        weights = seen[tap][0][0, head].tolist()
        if group.name == "cross":
            rows, columns = example.wanted, example.tokens
        else:
            rows = columns = example.tokens if group.name == "encoder" else example.fed or example.tokens
        linked = set() if links is None else links[number]
        for q, a in enumerate(weights):
            if group.causal and q == 0:
                continue
            may_see = range(q + 1) if group.causal else range(len(columns))
            for name, keys in _keys(group.name, q, rows, columns, linked).items():
                there = [a[k] for k in keys if k in may_see]
                if there:
                    totals.setdefault(name, []).append(sum(there))
            totals.setdefault("entropy", []).append(-sum(a[k] * math.log(a[k]) for k in may_see if a[k] > 0))
            if group.name != "cross":
                totals.setdefault("distance", []).append(sum(a[k] * abs(q - k) for k in may_see))
    return {name: sum(each) / len(each) for name, each in totals.items()}


def _keys(kind: str, q: int, rows, columns, linked) -> dict[str, list[int]]:
    """The definitions in words: what query q would have to look at."""
    token, every = rows[q], range(len(columns))
    word = token not in SPECIAL
    found = {
        "first": [0] if q > 0 else [],
        "separator": [k for k in every if word and k > 0 and columns[k] in SPECIAL],
    }
    if kind == "cross":
        middle = (q + 0.5) * len(columns) / len(rows)
        return found | {
            "same": [k for k in every if word and columns[k] == token],
            "diagonal": [k for k in every if abs(k + 0.5 - middle) <= 1],
            "aligned": [k for k in every if (q, k) in linked],
        }
    return found | {
        "previous": [q - 1],
        "next": [q + 1],
        "itself": [q],
        "same": [k for k in every if word and k != q and columns[k] == token],
        "induction": [k for k in every if word and 0 < k != q and k - 1 != q and columns[k - 1] == token],
    }


@pytest.mark.parametrize("shape", list(MAKERS))
def test_scores_are_the_definitions_counted_out(shape):
    model, some = MAKERS[shape](), examples(shape)
    links = [{(0, 1), (1, 0), (1, 1)}, {(0, 0)}, {(2, 3)}, {(0, 0)}] if shape == "encoder-decoder" else None
    found = head_scores(model, some, SPECIAL, links=links, tokens=30)
    assert [one.group.name for one in found] == [one.name for one in groups(model)]
    for one in found:
        for layer, head in ((0, 0), (1, 2)):
            expected = _brute(one.group, layer, head, model, some, links)
            assert set(one.values) == set(expected)
            for name, value in expected.items():
                assert one.values[name][layer, head].item() == pytest.approx(value, rel=1e-9, abs=1e-12), name


@pytest.mark.parametrize("shape", list(MAKERS))
def test_even_attention_scores_what_chance_says(shape):
    model = MAKERS[shape]()

    def even(value, name):
        keep = torch.ones_like(value, dtype=torch.bool)
        if ".decoder." in f".{name}" and "self" in name:
            keep = keep.tril()
        return keep.to(value) / keep.sum(-1, keepdim=True)

    with edit(model, "*.weights", even):
        # One text at a time: what is padded must not be spread over.
        for example in examples(shape):
            for one in head_scores(model, [example], SPECIAL):
                for name, value in one.values.items():
                    chance = torch.full_like(value, one.chance[name])
                    torch.testing.assert_close(value, chance, rtol=1e-12, atol=1e-12, msg=name)


def _hard(choose):
    """Attention that gives everything to key choose(q), made in head 1 alone."""

    def made(value, name):
        other = value.clone()
        hard = torch.zeros_like(value[:, 1])
        for q in range(value.shape[2]):
            hard[:, q, min(max(choose(q), 0), value.shape[3] - 1)] = 1
        other[:, 1] = hard
        return other

    return made


@pytest.mark.parametrize(
    ("name", "choose"),
    [
        ("previous", lambda q: q - 1),
        ("next", lambda q: q + 1),
        ("itself", lambda q: q),
        ("first", lambda q: 0),
        ("separator", lambda q: 99),
    ],
)
def test_a_head_made_to_do_one_thing_scores_one(name, choose):
    model, some = encoder_only(), examples("encoder-only")
    for example in some:
        with edit(model, "encoder.layers.1.self_attention.weights", _hard(choose)):
            [found] = head_scores(model, [example], SPECIAL)
        assert found.values[name][1, 1].item() == pytest.approx(1.0)
        assert found.role(1, 1) == name
        assert found.values["entropy"][1, 1].item() == 0.0
        assert found.values[name][1, 0] < 1


def test_induction_and_same_token_in_a_text_said_twice():
    half = [7, 12, 5, 9, 15]
    example = Example((START, *half, *half))
    model = decoder_only()
    size = len(half)
    with edit(model, "decoder.layers.0.self_attention.weights", _hard(lambda q: q - size + 1)):
        [found] = head_scores(model, [example], SPECIAL)
    # Half of the text has been said before; of the first half nothing is asked.
    assert (found.counts["induction"], found.values["induction"][0, 1].item()) == (size, 1.0)
    assert found.role(0, 1) == "induction"
    assert found.role(0, 1, threshold=1.0) == ""
    with edit(model, "decoder.layers.0.self_attention.weights", _hard(lambda q: q - size)):
        [found] = head_scores(model, [example], SPECIAL)
    assert (found.counts["same"], found.values["same"][0, 1].item()) == (size, 1.0)
    assert found.values["distance"][0, 1].item() == pytest.approx(sum(min(q, size) for q in range(1, 11)) / 10)
    assert found.values["induction"][0, 1].item() == 0.0


def test_a_monotone_and_an_aligned_cross_head():
    model = encoder_decoder()
    example = Example((4, 5, 6, 7, 8, END), fed=(START, 4, 5, 6, 7, 8), wanted=(4, 5, 6, 7, 8, END))
    crossing = {0: 3, 1: 2, 2: 1, 3: 0, 4: 4, 5: 5}
    for links, choose, name in ((None, lambda q: q, "diagonal"), (crossing.items(), crossing.get, "aligned")):
        given = None if links is None else [list(links)]
        with edit(model, "decoder.layers.1.cross_attention.weights", _hard(choose)):
            cross = head_scores(model, [example], SPECIAL, links=given)[2]
        assert cross.values[name][1, 1].item() == 1.0
        # The token that is predicted stands in the source at the same place.
        assert (cross.values["same"][1, 1].item() == 1.0) is (name == "diagonal")


def test_batches_change_nothing_and_nobody_listens_afterwards():
    model, some = encoder_decoder().train(), examples("encoder-decoder")
    told: list[int] = []
    for one, other in zip(
        head_scores(model, some, SPECIAL, tokens=1, progress=told.append),
        head_scores(model, some, SPECIAL, tokens=10_000),
        strict=True,
    ):
        for name in one.values:
            torch.testing.assert_close(one.values[name], other.values[name], rtol=1e-10, atol=1e-12)
    assert told == [1] * 4
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_what_cannot_be_scored():
    model, some = encoder_decoder(), examples("encoder-decoder")
    with pytest.raises(InputError, match="no text"):
        head_scores(model, [], SPECIAL)
    with pytest.raises(InputError, match="links of 1 examples, but 4"):
        head_scores(model, some, SPECIAL, links=[[]])
    with pytest.raises(InputError, match="0-99"):
        head_scores(model, some[:1], SPECIAL, links=[[(0, 99)]])
    assert groups(model)[0].heads == HEADS
