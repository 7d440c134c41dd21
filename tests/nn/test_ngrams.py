"""Vectors of n-grams: a plain loop as the oracle, texts that stay apart, and whole vectors that are left out."""

from __future__ import annotations

import pytest
import torch

from sublayer import config
from sublayer.config.presets import PRESETS
from sublayer.errors import CheckpointError, ConfigError
from sublayer.hub.exporting import choose_family
from sublayer.nn.context import Context
from sublayer.nn.convolution import text_numbers
from sublayer.nn.embedding import Embedding
from sublayer.nn.ngrams import FACTOR, PRIME, NGrams, hashed
from sublayer.nn.positions import NoPosition

WIDTH, BUCKETS = 6, 997


def ngrams(*sizes: int) -> NGrams:
    torch.manual_seed(sum(sizes))
    part = NGrams(config.NGrams(sizes=sizes, buckets=BUCKETS), WIDTH).double()
    torch.nn.init.normal_(part.table.weight)
    return part


def one_by_one(part: NGrams, text: list[int]) -> torch.Tensor:
    """The same of one text, by Python's whole numbers."""
    found = torch.zeros(len(text), WIDTH, dtype=torch.float64)
    for size in part.sizes:
        for end in range(size, len(text) + 1):
            number = size
            for token in text[end - size : end]:
                number = (number ^ token) * FACTOR % PRIME
                number ^= number >> 15
            found[end - 1] += part.table.weight[number % BUCKETS]
    return found


@pytest.mark.parametrize("sizes", [(2,), (3,), (2, 3), (2, 5, 8)], ids=str)
def test_it_is_the_sum_of_the_vectors_of_the_ngrams(sizes: tuple[int, ...]) -> None:
    part, tokens = ngrams(*sizes), torch.randint(2**31 - 1, (3, 7))
    for found, row in zip(part(tokens), tokens.tolist(), strict=True):
        torch.testing.assert_close(found, one_by_one(part, row))


def test_a_text_in_a_padded_or_packed_row_is_what_it_is_alone() -> None:
    part, tokens, lengths = ngrams(2, 3), torch.randint(50, (2, 9)), torch.tensor([4, 9])
    found = part(tokens, text_numbers(tokens, lengths, None))
    torch.testing.assert_close(found[0, :4], one_by_one(part, tokens[0, :4].tolist()))
    segments = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, 2]])
    found = part(tokens[:1], text_numbers(segments, torch.tensor([7]), segments))
    for first, last in ((0, 3), (3, 5), (5, 7)):
        torch.testing.assert_close(found[0, first:last], one_by_one(part, tokens[0, first:last].tolist()))


def test_few_of_the_bigrams_of_a_vocabulary_share_a_row() -> None:
    """As few as of random numbers: of n drawn from as many rows about n / e rows stay empty."""
    one, other = torch.meshgrid(torch.arange(300), torch.arange(300), indexing="ij")
    rows, there = hashed(torch.stack([one.flatten(), other.flatten()], 1), 2, 90_000, None)
    assert there[:, 1].all()
    assert not there[:, 0].any()
    empty = 90_000 - rows[:, 1].unique().numel()
    assert abs(empty / 90_000 - 0.3679) < 0.01


def embedded(tokens: torch.Tensor, **settings: object) -> tuple[torch.Tensor, Embedding]:
    c = config.Embedding(scale=False, ngrams=config.NGrams(sizes=(2,), buckets=BUCKETS), **settings)  # pyright: ignore[reportArgumentType]
    part = Embedding(c, 50, WIDTH).double()
    torch.nn.init.normal_(part.tokens.weight)
    torch.nn.init.normal_(part.ngrams.table.weight)  # pyright: ignore[reportOptionalMemberAccess]
    return part(tokens, NoPosition(), Context(torch.arange(tokens.shape[1]), [])), part


def test_whole_vectors_are_left_out_in_training_alone() -> None:
    tokens = torch.randint(50, (200, 20))
    found, part = embedded(tokens, token_dropout=0.3)
    bigrams = part.ngrams
    assert bigrams is not None
    # What stands there is 0, 1 or 2 vectors, each made as much longer as the others are fewer.
    kept = torch.zeros(2, 2)
    own, two = part.tokens(tokens) / 0.7, bigrams(tokens) * 0
    two = bigrams.eval()(tokens) / 0.7
    for a in (0, 1):
        for b in (0, 1):
            same = (found - (a * own + b * two)).abs().amax(dim=-1)[:, 1:] < 1e-9
            kept[a, b] = same.double().mean()
    torch.testing.assert_close(kept, torch.tensor([[0.09, 0.21], [0.21, 0.49]]), atol=0.03, rtol=0.0)
    part.eval()
    still = part(tokens, NoPosition(), Context(torch.arange(20), []))
    torch.testing.assert_close(still, 0.7 * (own + two))


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"sizes": [1]}, "should be 2 or more"), ({"sizes": []}, "at least 1"), ({"sizes": [2, 2]}, "2 twice")],
)
def test_sizes_that_make_no_sense_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config.NGrams.parse(settings, "r.toml")


def test_another_library_refuses_to_write_them_but_not_what_is_of_training_alone() -> None:
    plain = PRESETS["bert-base"].plain()
    plain["embedding"] |= {"token_dropout": 0.4, "initial_std": 0.1}
    choose_family(config.EncoderOnly.parse(plain, "r.toml"))
    plain["embedding"]["ngrams"] = {}
    with pytest.raises(CheckpointError, match=r"embedding\.ngrams"):
        choose_family(config.EncoderOnly.parse(plain, "r.toml"))
