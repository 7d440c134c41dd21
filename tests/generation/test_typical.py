"""Locally typical sampling against transformers' warper and by its definition, and all that follows from its field."""

from __future__ import annotations

import math
from itertools import accumulate

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation import logits_process as theirs

from readers import word_tokenizer
from small_run import sublayer
from sublayer import config
from sublayer.cli.decoding import search_of
from sublayer.config.sampling import typical_p
from sublayer.hub import generation_config


@given(
    seed=st.integers(0, 10**6),
    vocabulary=st.integers(1, 40),
    size=st.sampled_from([0.3, 3.0]),
    p=st.sampled_from([0.05, 0.5, 0.95]),
)
def test_against_transformers(seed: int, vocabulary: int, size: float, p: float) -> None:
    logits = torch.randn(3, vocabulary, generator=torch.Generator().manual_seed(seed)).double() * size
    logits[:, 1:] = logits[:, 1:].masked_fill(logits[:, 1:] < -2 * size, float("-inf"))
    expected = theirs.TypicalLogitsWarper(p)(None, logits)
    assert torch.equal(config.Sampling(typical_p=p).process_logits(logits), expected)


def test_the_most_probable_token_may_be_too_plain() -> None:
    """By hand: of 0.5, 0.2, 0.2 and 0.1 the entropy is 1.221, so 1.609 (0.2) is nearer than 0.693 (0.5)."""
    chances = [0.5, 0.2, 0.2, 0.1]
    entropy = -sum(each * math.log(each) for each in chances)
    ranked = sorted(range(4), key=lambda token: abs(-math.log(chances[token]) - entropy))
    reached = list(accumulate(chances[token] for token in ranked))
    assert (ranked[:2], reached[1]) == ([1, 2], pytest.approx(0.4))
    kept = typical_p(torch.tensor([chances]).double().log(), 0.35).isfinite()
    assert kept.tolist() == [[False, True, True, False]]


def test_the_field_is_an_option_of_every_command_that_samples() -> None:
    for command in ("generate", "chat"):
        said = sublayer(command, "--help").out
        assert "--typical-p" in said
        assert "Meister" in said
    assert search_of(config.Greedy(), {"typical_p": 0.9}) == config.Sampling(typical_p=0.9)


def test_other_libraries_setting_is_read_and_written() -> None:
    tree, tokenizer = config.preset("gpt2"), word_tokenizer()
    read = generation_config.read(tree, {}, {"do_sample": True, "top_k": 0, "typical_p": 0.9}, tokenizer)
    assert config.Sampling.parse(read["search"], "test") == config.Sampling(typical_p=0.9)
    assert generation_config.write(tree, read, tokenizer)["typical_p"] == 0.9
