"""Sampling against transformers' warpers, against the distribution, and batched against single."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation import logits_process as theirs

import twins
from generation.distributions import chi_square_p, shifted
from generation.fakes import LanguageTable, decode_from
from laws.models import build
from sublayer import config
from sublayer.config import sampling
from sublayer.generation.randomness import Uniforms, stream, uniform
from sublayer.generation.request import DecodeRequest
from sublayer.generation.sampling import Sampler, sample

# --- what is sampled from ----------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 10**6),
    vocabulary=st.integers(1, 40),
    size=st.sampled_from([0.3, 3.0]),
    temperature=st.sampled_from([0.2, 1.0, 1.9]),
    top_k=st.sampled_from([None, 1, 3, 20, 100]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 0.01]),
    min_p=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
)
def test_against_transformers(
    seed: int, vocabulary: int, size: float, temperature: float, top_k: int | None, top_p: float, min_p: float
) -> None:
    logits = torch.randn(3, vocabulary, generator=torch.Generator().manual_seed(seed)) * size
    # Some are out of the question already.
    logits[:, 1:] = logits[:, 1:].masked_fill(logits[:, 1:] < -2 * size, float("-inf"))
    c = config.Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    before = logits.clone()
    found = c.process_logits(logits)
    assert torch.equal(logits, before)
    expected = theirs.TemperatureLogitsWarper(temperature)(None, logits)
    if top_k is not None:
        expected = theirs.TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1.0:
        expected = theirs.TopPLogitsWarper(top_p)(None, expected)
    if min_p > 0.0:
        expected = theirs.MinPLogitsWarper(min_p)(None, expected)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("p", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("size", [0.01, 1.0, 4.0])
def test_top_p_of_a_large_vocabulary(p: float, size: float) -> None:
    """Flat and steep, so that few tokens or nearly all are looked at, of rows of which one is unlike the others."""
    logits = torch.randn(3, 3000) * size
    logits[1] *= 5
    cut = torch.isinf(sampling.top_p(logits, p))
    expected = torch.isinf(theirs.TopPLogitsWarper(p)(None, logits))
    # At the border a rounding may decide: one token there, of all.
    assert (cut != expected).sum(dim=1).max() <= 1
    kept = logits.softmax(-1).masked_fill(cut, 0.0).sum(-1)
    assert (kept >= p - 1e-4).all()


def test_ties_of_top_k_stay() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, 2.0, 0.0]])
    assert torch.isinf(sampling.top_k(logits, 2)).tolist() == [[True, False, False, False, True]]


# --- drawing -----------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10**6), vocabulary=st.sampled_from([1, 2, 255, 256, 257, 1000]), size=st.floats(0.1, 30))
def test_drawing_is_the_inverse_of_the_cumulative_distribution(seed: int, vocabulary: int, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, vocabulary, generator=generator) * size
    logits[0, torch.randint(vocabulary, (vocabulary // 2,), generator=generator)] = float("-inf")
    logits[0, torch.randint(vocabulary, (1,), generator=generator)] = 2.0
    reached = logits[0].double().softmax(-1).cumsum(-1)
    numbers = [0.0, 2.0**-52, 0.5, 1.0 - 2.0**-52, *torch.rand(30, generator=generator).tolist()]
    for number, token in zip(numbers, sample(logits.expand(len(numbers), -1), numbers).tolist()):
        assert logits[0, token] > float("-inf"), "what cannot be was drawn"
        before = reached[token - 1].item() if token else 0.0
        # The probabilities are float32's.
        assert before - 1e-6 <= number <= reached[token].item() + 1e-6


def test_draws_have_the_distribution() -> None:
    """20,000 draws of ten tokens; the test itself would see a shift of two in a hundred."""
    logits = torch.randn(1, 10)
    expected = dict(enumerate(logits[0].double().softmax(-1).tolist()))
    count = 20_000
    row = stream(7, 3)
    tokens = sample(logits.expand(count, -1), [uniform(row, place) for place in range(count)]).tolist()
    assert chi_square_p(Counter(tokens), expected) > 1e-3
    wrong = {token: probability * count for token, probability in shifted(expected, 0.02).items()}
    assert chi_square_p(wrong, expected) < 1e-3


# --- random numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "numbers",
    [
        [uniform(stream(1, 0, 0), place) for place in range(8192)],
        [uniform(stream(1, row, 0), 0) for row in range(8192)],
        [uniform(stream(1, 0, sample), 5) for sample in range(8192)],
        [uniform(stream(seed, 0, 0), 0) for seed in range(8192)],
    ],
    ids=["steps", "rows", "samples", "seeds"],
)
def test_uniform_numbers_are_uniform_and_independent(numbers: list[float]) -> None:
    """Singly, and each with the one after it and the one four after it."""
    assert all(0 <= number < 1 for number in numbers)
    assert len(set(numbers)) == len(numbers)
    cells = 16
    places = [int(number * cells) for number in numbers]
    assert chi_square_p(Counter(places), dict.fromkeys(range(cells), 1 / cells)) > 1e-3
    for apart in (1, 4):
        pairs = Counter(zip(places, places[apart:]))
        every = {(a, b): 1 / cells**2 for a in range(cells) for b in range(cells)}
        assert chi_square_p(pairs, every) > 1e-3


def test_streams_differ_by_every_number_and_its_place() -> None:
    names = [(1,), (1, 0), (0, 1), (1, 0, 0), (0, 0, 1), (2, 3), (3, 2), (2**64 + 1, 0), (-1, 0)]
    assert len({stream(*name) for name in names}) == len(names) - 1  # 2 ** 64 + 1 is 1
    one, other = Uniforms(stream(5)), Uniforms(stream(5))
    assert [one.next() for _ in range(5)] == [other.next() for _ in range(5)]


# --- in the loop -------------------------------------------------------------------------------------------------


def texts(
    model: Any, source: torch.Tensor, lengths: Any, request: DecodeRequest, streams: list[int], **more: Any
) -> Any:
    """What sampling says in each row, with log-probabilities."""
    sampler = Sampler(config.Sampling(temperature=0.9, top_k=12, top_p=0.95))
    said: list[list[tuple[int, float]]] = [[] for _ in streams]
    with torch.no_grad():
        for step in decode_from(model, source, lengths, request, sampler, streams=streams, **more):
            for row, chosen in step.items():
                said[row].append((chosen.token, chosen.log_probability))
    return said


@pytest.mark.parametrize("samples", [1, 3])
def test_what_is_sampled_together_is_what_is_sampled_alone(samples: int) -> None:
    """A ragged batch of a transformer, whose rows end at different times."""
    model = build(twins.tree(), dtype=torch.float32, seed=2)
    lengths = torch.tensor([3, 9, 1, 6, 9])
    source = torch.randint(23, (5, 9))
    request = DecodeRequest([0] * 5, frozenset({1, 2, 3}), [12, 5, 9, 12, 1])
    streams = [stream(11, row, sample) for row in range(5) for sample in range(samples)]
    together = texts(model, source, lengths, request, streams, samples=samples)
    for row in range(5):
        own = streams[row * samples : (row + 1) * samples]
        alone = texts(model, source[row : row + 1, : lengths[row]], None, request.of(row), own, samples=samples)
        for found, expected in zip(together[row * samples :], alone):
            assert [token for token, _ in found] == [token for token, _ in expected]
            assert [gain for _, gain in found] == pytest.approx([gain for _, gain in expected], rel=1e-4, abs=1e-5)
    said = [tuple(token for token, _ in row) for row in together]
    assert len({len(row) for row in said}) > 2, "all ended together"
    if samples > 1:
        assert any(len({*said[row * samples : (row + 1) * samples]}) > 1 for row in range(5))


def test_samples_have_the_models_distribution() -> None:
    """Texts of two tokens, 8,000 of them in one batch; reported log-probabilities are the model's, before warping."""
    table = LanguageTable(5, 8, order=2)
    c = config.Sampling(temperature=3.0, top_k=4)
    count = 8000
    request = DecodeRequest([3], frozenset({1}), [2], [[2]])
    first = c.process_logits(table.after((2, 3)).unsqueeze(0))[0].softmax(-1).tolist()
    expected: dict[Any, float] = {}
    for token, probability in enumerate(first):
        if token == 1:
            expected[(1,)] = probability
            continue
        second = c.process_logits(table.after((3, token)).unsqueeze(0))[0].softmax(-1).tolist()
        expected |= {(token, other): probability * another for other, another in enumerate(second)}
    said: list[tuple[int, ...]] = [()] * count
    streams = [stream(4, 0, sample) for sample in range(count)]
    for step in decode_from(table, torch.tensor([[2]]), None, request, Sampler(c), samples=count, streams=streams):
        for row, chosen in step.items():
            own = table.memo[(2, 3, *said[row])[-2:]].log_softmax(-1)[chosen.token]
            assert abs(chosen.log_probability - own.item()) < 1e-5
            said[row] = (*said[row], chosen.token)
    assert chi_square_p(Counter(said), expected) > 1e-2
    wrong = {outcome: probability * count for outcome, probability in shifted(expected, 0.02).items()}
    assert chi_square_p(wrong, expected) < 1e-2
