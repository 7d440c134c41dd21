"""Past the context: every token is what the model says of the window alone, read from its beginning."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from generation.prompted import tokenizer
from sublayer import config
from sublayer.errors import InputError
from sublayer.generation.generator import Generator
from sublayer.generation.plan import Speculation
from sublayer.generation.speculative import PromptLookup
from sublayer.generation.window import window_start
from sublayer.models import build_model

CONTEXT = 12
POSITIONS = ["sinusoidal", "learned", "rotary", "alibi", "relative", "none"]
SAMPLING = config.Sampling(temperature=0.7)


@given(length=st.integers(0, 300), context=st.integers(2, 60))
def test_a_window_fits_and_forgets_half_at_most(length: int, context: int) -> None:
    start = window_start(length, context)
    assert (start == 0) == (length <= context)
    if start:
        assert context // 2 <= length - start <= context
        assert start == window_start(length - 1, context) or length - start == context // 2


def made(position: str, *, layers: int = 2, **more: Any) -> Generator[Any]:
    own = tokenizer()
    block = {
        "norm_placement": "pre",
        "attention": {"heads": 2},
        "feed_forward": {"type": "position-wise", "hidden": 16},
    }
    tree: dict[str, Any] = {"dim": 16, "max_length": CONTEXT, "vocab_size": own.vocab_size}
    if position in ("lstm", "gru"):
        c: Any = config.RecurrentDecoderOnly.parse({**tree, "cell": position, "decoder": {"layers": layers}}, "test")
    else:
        stack = {"layers": layers, "position": {"type": position}, "block": block}
        c = config.DecoderOnly.parse({**tree, "kind": "decoder-only", "decoder": stack}, "test")
    torch.manual_seed(5)
    model = build_model(c)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    return Generator(model, own, config.Generation(), **more)


def said_by_windows(model: Any, prompt: list[int], count: int, end: int) -> list[int]:
    """Greedy search, each token by reading its window anew."""
    text = list(prompt)
    for _ in range(count):
        window = torch.tensor([text[window_start(len(text), CONTEXT) :]])
        with torch.inference_mode():
            text.append(int(model(window)[0, -1].argmax()))
        if text[-1] == end:
            return text[len(prompt) : -1]
    return text[len(prompt) :]


@pytest.mark.parametrize("backend", ["runner", "model"])
@pytest.mark.parametrize("position", [*POSITIONS, "lstm"])
def test_every_token_is_what_the_window_alone_says(position: str, backend: str) -> None:
    own = made(position)
    if backend == "model":
        own = Generator(own.model, own.tokenizer, own.decoding, backend=own.model)
    for prompt in ([7], [9, 4, 8], [5] * (CONTEXT - 1)):
        [found] = own.generate([prompt], max_tokens=40)
        assert found.tokens == said_by_windows(own.model, prompt, 40, own.tokenizer.end_id)
        assert len(found.tokens) > 2 * CONTEXT, "the model has ended before the window moved"


@pytest.mark.parametrize("search", [config.Greedy(), SAMPLING], ids=str)
def test_together_as_alone_and_in_a_stream(search: config.Search) -> None:
    own = made("rotary")
    prompts = [[7], [9, 4, 8], [6], [5, 6, 7], [5] * 11]
    options: dict[str, Any] = {"search": search, "max_tokens": 30, "seed": 3}
    n = 1 if isinstance(search, config.Greedy) else 3
    together = own.generate(prompts, n=n, **options)
    for row, prompt in enumerate(prompts):
        [alone] = own.generate([prompt], n=n, first=row, **options)
        assert [one.tokens for one in alone.completions] == [one.tokens for one in together[row].completions]
        stream = own.stream(prompt, first=row, **options)
        assert "".join(stream) == alone.text


def test_a_text_that_fits_is_what_it_was() -> None:
    own = made("learned")
    [short] = own.generate([[7, 8]], max_tokens=CONTEXT - 2)
    [long] = own.generate([[7, 8]], max_tokens=30)
    assert long.tokens[: CONTEXT - 2] == short.tokens


def test_log_probabilities_and_constraints_know_the_whole_text() -> None:
    own = made("rotary")
    banned = config.Constraints(no_repeat_ngram=1)
    [found] = own.generate([[7, 8]], max_tokens=30, constraints=banned, log_probabilities=True)
    assert len({7, 8, *found.tokens}) == 2 + len(found.tokens)
    text = [7, 8]
    for token, gain in zip(found.tokens, found.best.log_probabilities or [], strict=False):
        window = torch.tensor([text[window_start(len(text), CONTEXT) :]])
        with torch.inference_mode():
            expected = own.model(window)[0, -1].log_softmax(-1)[token]
        torch.testing.assert_close(torch.tensor(gain), expected, rtol=1e-4, atol=1e-4)
        text.append(token)


def test_what_does_not_move_says_so() -> None:
    own = made("rotary")
    for options in ({"search": config.Beam()}, {"speculation": Speculation(PromptLookup())}):
        with pytest.raises(InputError, match="Ask for 10 at most, or shorten the prompt; greedy search and sampling"):
            own.generate([[7, 8]], max_tokens=30, **options)
    with pytest.raises(InputError, match="only 10 remain of the model's context of 12"):
        own.with_prefix_cache().generate([[7, 8]], max_tokens=30)
    with pytest.raises(InputError, match="prompt 1 has 12 tokens, which leaves no room"):
        own.generate([[5] * 12], max_tokens=30)
