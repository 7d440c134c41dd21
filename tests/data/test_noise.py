"""What is hidden: how much, of what kind, and that nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublayer.config import DenoisingTask, MaskedTask, SpanCorruptionTask
from sublayer.data.batch import IGNORE
from sublayer.data.noise import corrupt_spans, infill, mask_tokens, span_counts

MASK = 4
SENTINELS = np.arange(500, 600)
# Ordinary tokens: 10 to 99. Those that stand in for one: 100 to 199, so that they can be told from it.
OTHERS = np.arange(100, 200)
TEXTS = st.lists(st.integers(10, 99), min_size=1, max_size=120).map(lambda tokens: np.array(tokens, dtype=np.int64))
SEEDS = st.integers(0, 2**32)


# --- masking -----------------------------------------------------------------------------------------------------


@given(tokens=TEXTS, seed=SEEDS, rate=st.floats(0.01, 0.9), whole=st.booleans(), data=st.data())
def test_only_targets_change_and_a_target_is_what_stood_there(
    tokens: np.ndarray, seed: int, rate: float, whole: bool, data: st.DataObject
) -> None:
    c = MaskedTask(rate=rate, whole_words=whole)
    starts = np.array(data.draw(st.lists(st.booleans(), min_size=len(tokens), max_size=len(tokens))))
    starts[0] = True
    before = tokens.copy()
    given_, target = mask_tokens(
        tokens, c, np.random.default_rng(seed), starts=starts, mask_id=MASK, others=OTHERS
    )
    assert (tokens == before).all()
    asked = target != IGNORE
    assert (target[asked] == tokens[asked]).all()
    assert (given_[~asked] == tokens[~asked]).all()
    count = max(1, round(rate * len(tokens)))
    if not whole:
        assert asked.sum() == count
        return
    word = np.cumsum(starts)
    chosen = set(word[asked].tolist())
    assert all(asked[word == each].all() for each in chosen)
    longest = np.bincount(word).max()
    assert count <= asked.sum() < count + longest


def test_the_three_kinds_of_hiding_have_their_shares() -> None:
    """Binomial: five standard deviations of 20,000 draws are under 0.015."""
    tokens = np.arange(10, 100).repeat(10)
    counts = np.zeros(3)
    draws = 0
    for seed in range(150):
        given_, target = mask_tokens(
            tokens,
            MaskedTask(),
            np.random.default_rng(seed),
            starts=np.ones(len(tokens), dtype=bool),
            mask_id=MASK,
            others=OTHERS,
        )
        asked = target != IGNORE
        found = given_[asked]
        counts += [(found == MASK).sum(), (found >= 100).sum(), (found == tokens[asked]).sum()]
        draws += asked.sum()
    assert draws > 20_000
    assert counts.sum() == draws
    assert counts / draws == pytest.approx([0.8, 0.1, 0.1], abs=0.015)


def test_every_place_is_as_likely_to_be_hidden() -> None:
    tokens = np.arange(10, 50)
    starts = np.ones(len(tokens), dtype=bool)
    hidden = np.zeros(len(tokens))
    for seed in range(3000):
        _, target = mask_tokens(
            tokens, MaskedTask(), np.random.default_rng(seed), starts=starts, mask_id=MASK, others=OTHERS
        )
        hidden += target != IGNORE
    # Standard deviation of each: sqrt(0.15 * 0.85 / 3000) = 0.0065.
    assert hidden / 3000 == pytest.approx(np.full(len(tokens), 0.15), abs=0.03)


# --- span corruption ---------------------------------------------------------------------------------------------


def filled(given_: np.ndarray, target: np.ndarray) -> list[int]:
    """The text, with what the target says in place of each sentinel."""
    said: dict[int, list[int]] = {}
    for token in target.tolist():
        if token >= 500:
            last = said.setdefault(token, [])
        else:
            last.append(token)
    text: list[int] = []
    for token in given_.tolist():
        text += said.pop(token) if token >= 500 else [token]
    assert said == {}
    return text


@given(
    tokens=TEXTS, seed=SEEDS, density=st.floats(0.01, 0.9), span=st.floats(1, 12), sentinels=st.integers(1, 100)
)
def test_what_is_left_and_what_is_out_make_the_text(
    tokens: np.ndarray, seed: int, density: float, span: float, sentinels: int
) -> None:
    c = SpanCorruptionTask(density=density, span=span, sentinels=sentinels)
    given_, target = corrupt_spans(tokens, c, np.random.default_rng(seed), sentinels=SENTINELS[:sentinels])
    assert filled(given_, target) == tokens.tolist()
    used = [token for token in given_.tolist() if token >= 500]
    assert used == [token for token in target.tolist() if token >= 500] == SENTINELS[: len(used)].tolist()
    out, spans = span_counts(len(tokens), c)
    assert (len(used), len(target), len(given_)) == (spans, out + spans, len(tokens) - out + spans)
    if len(tokens) > 1:
        assert out == min(max(round(density * len(tokens)), 1), len(tokens) - 1)
        assert spans <= max(1, round(out / span))


def test_every_way_to_divide_into_spans_is_as_likely() -> None:
    """4 tokens out in 2 spans: 3 ways; 4 kept in 2: 3 ways. 9 in all; five standard deviations of 4,500 draws."""
    c = SpanCorruptionTask(density=0.5, span=2.0)
    ways: dict[str, int] = {}
    random = np.random.default_rng(0)
    for _ in range(4_500):
        given_, target = corrupt_spans(np.arange(10, 18), c, random, sentinels=SENTINELS)
        shape = str([token >= 500 for token in (*given_.tolist(), *target.tolist())])
        ways[shape] = ways.get(shape, 0) + 1
    assert len(ways) == 9
    assert min(ways.values()) > 395
    assert max(ways.values()) < 605


# --- denoising ---------------------------------------------------------------------------------------------------


@given(tokens=TEXTS, seed=SEEDS, density=st.floats(0.01, 0.95), span=st.floats(1, 6))
def test_infilling_hides_spans_and_keeps_the_order(
    tokens: np.ndarray, seed: int, density: float, span: float
) -> None:
    c = DenoisingTask(density=density, span=span, permute=False)
    ends = np.zeros(len(tokens), dtype=bool)
    numbered = np.arange(1000, 1000 + len(tokens))
    left, target = infill(numbered, c, np.random.default_rng(seed), ends=ends, mask_id=MASK)
    assert (target == numbered).all()
    assert len(left) <= len(tokens)
    kept = left[left != MASK]
    assert (np.diff(kept) > 0).all()
    # What is missing between two that are left is behind a mask.
    places = np.flatnonzero(left != MASK)
    for a, b in zip(places, places[1:]):
        assert b > a + 1 or left[b] == left[a] + 1
    assert len(kept) == 0 or left[0] == MASK or left[0] == 1000
    hidden = len(tokens) - len(kept)
    assert hidden <= int(np.ceil(density * len(tokens)))
    if density < 0.4 and len(tokens) > 20:
        assert hidden == int(np.ceil(density * len(tokens)))


def test_lengths_of_spans_are_poissons() -> None:
    """Without the empty ones: the mean of a Poisson variable that is not 0 is 3 / (1 - exp(-3))."""
    lengths: list[int] = []
    numbered = np.arange(1000, 1400)
    c = DenoisingTask(permute=False)
    for seed in range(200):
        left, _ = infill(
            numbered, c, np.random.default_rng(seed), ends=np.zeros(400, dtype=bool), mask_id=MASK
        )
        kept = left[left != MASK]
        lengths += [int(gap) - 1 for gap in np.diff(kept) if gap > 1]
    assert np.mean(lengths) == pytest.approx(3 / (1 - np.exp(-3)), abs=0.1)


def test_sentences_are_permuted_whole() -> None:
    tokens = np.array([10, 11, 99, 20, 99, 30, 31, 32, 99, 40])
    c = DenoisingTask(density=0.01)
    orders: set[tuple[int, ...]] = set()
    for seed in range(300):
        left, target = infill(tokens, c, np.random.default_rng(seed), ends=tokens == 99, mask_id=MASK)
        assert (target == tokens).all()
        orders.add(tuple(left[left != MASK] // 10))
        # One token is hidden; the others stand in their sentence, and each sentence in one piece.
        text = " ".join(map(str, left.tolist()))
        whole = [sentence for sentence in ("10 11 99", "20 99", "30 31 32 99", "40") if sentence in text]
        assert len(whole) >= 3
    assert len(orders) >= 24


def test_noise_goes_by_the_generator_alone() -> None:
    tokens = np.arange(10, 90)
    for noise in (
        lambda random: mask_tokens(
            tokens, MaskedTask(), random, starts=np.ones(80, dtype=bool), mask_id=MASK, others=OTHERS
        ),
        lambda random: corrupt_spans(tokens, SpanCorruptionTask(), random, sentinels=SENTINELS),
        lambda random: infill(tokens, DenoisingTask(), random, ends=tokens % 7 == 0, mask_id=MASK),
    ):
        one, same, other = (noise(np.random.default_rng(seed)) for seed in (1, 1, 2))
        assert [each.tolist() for each in one] == [each.tolist() for each in same]
        assert [each.tolist() for each in one] != [each.tolist() for each in other]
