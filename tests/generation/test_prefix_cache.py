"""A conversation that goes on from what was read before says what one that reads all of it again says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from generation.language_models import LONGEST, TREES, VOCABULARY
from generation.prompted import tokenizer
from sublayer import config
from sublayer.fast.decoding.runner import Runner
from sublayer.generation.generator import Generator
from sublayer.generation.plan import Speculation
from sublayer.generation.prefix_cache import PrefixCache
from sublayer.generation.speculative import PromptLookup
from sublayer.laws import relative_error
from sublayer.models import DecoderOnly, build_model
from sublayer.models.decoder import DecoderState

Ids = Sequence[int]


class Counting:
    """Passes everything on, and counts the tokens that are read."""

    def __init__(self, model: Any) -> None:
        self.model, self.read = model, 0

    def start(self, source: torch.Tensor, *given: Any, **told: Any) -> DecoderState:
        self.read += source.numel()
        return self.model.start(source, *given, **told)

    def step(self, tokens: torch.Tensor, state: DecoderState) -> torch.Tensor:
        self.read += tokens.numel()
        return self.model.step(tokens, state)


def large(tree: config.DecoderOnly) -> DecoderOnly:
    torch.manual_seed(1)
    model = build_model(tree).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.7)
    assert isinstance(model, DecoderOnly)
    return model


def logits(backend: Any, prompt: Ids, new: Ids, back: int = 0) -> torch.Tensor:
    """Of every new token after a prompt; the last ones, `back` of them, are then taken back."""
    state = backend.start(torch.tensor([prompt]), None, capacity=len(new))
    found = [backend.step(torch.tensor([[token]]), state) for token in new]
    state.truncate(state.length - back)
    return torch.cat(found, dim=1)


texts = st.lists(st.integers(0, 2), min_size=1, max_size=9)
"""Of so few tokens that many begin alike."""


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "gemma2"])
@given(turns=st.lists(st.tuples(texts, texts, st.integers(0, 1)), min_size=2, max_size=4))
@torch.no_grad()
def test_every_text_has_the_logits_that_it_has_alone(name: str, turns: list[tuple[Ids, Ids, int]]) -> None:
    model = large(TREES[name])
    cache = PrefixCache(model)
    for prompt, new, back in turns:
        expected = logits(model, prompt, new)
        assert relative_error(logits(cache, prompt, new, back), expected) < 1e-9


@torch.no_grad()
def test_only_what_is_new_is_read() -> None:
    counting = Counting(large(TREES["llama"]))
    cache = PrefixCache(counting)
    logits(cache, [1, 2, 3], [4, 5])
    assert counting.read == 5
    # All of the last text, and three more tokens.
    logits(cache, [1, 2, 3, 4, 5, 6, 7, 8], [9])
    assert counting.read == 5 + 3 + 1
    # Another text after three tokens; then one that begins otherwise.
    logits(cache, [1, 2, 3, 9, 9], [4])
    assert counting.read == 9 + 2 + 1
    logits(cache, [2, 2], [4])
    assert counting.read == 12 + 2 + 1
    # A batch is passed on, and leaves nothing to go on from.
    state = cache.start(torch.tensor([[2, 2], [3, 3]]))
    assert state.length == 2
    logits(cache, [2, 2], [4])
    assert counting.read == 15 + 4 + 3


@torch.no_grad()
def test_a_text_that_outgrows_its_room_is_read_again() -> None:
    model = large(TREES["llama"].model_copy(update={"max_length": 100}))
    counting = Counting(model)
    cache = PrefixCache(counting)
    text = torch.randint(4, VOCABULARY, (40,)).tolist()
    read: list[int] = []
    for size in range(1, 40):
        before = counting.read
        found = logits(cache, text[:size], [3])
        assert relative_error(found, logits(model, text[:size], [3])) < 1e-9
        read.append(counting.read - before)
    # Room for 8 tokens, then for 36, then for more than there are. A turn reads one new token of the prompt and the one
    # that is generated; those that begin anew read all.
    assert read == [2] * 7 + [9] + [2] * 27 + [37] + [2] * 3


@torch.no_grad()
@pytest.mark.parametrize("where", ["start", "step"])
def test_an_interruption_leaves_nothing_wrong(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control-C while a prompt is read anew, or in the midst of a step; then the conversation goes on."""
    model = large(TREES["llama"])
    cache = PrefixCache(model)
    logits(cache, [1, 2, 3], [4, 5])
    prompt = [2, 2, 3] if where == "start" else [1, 2, 3, 4, 6]

    def stop(*given: Any, **told: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model, where, stop)
        with pytest.raises(KeyboardInterrupt):
            logits(cache, prompt, [4])
    for after in ([2, 2, 3, 4, 5], [1, 2, 3, 4, 5]):
        assert relative_error(logits(cache, after, [7]), logits(model, after, [7])) < 1e-9


@torch.no_grad()
def test_there_is_room_to_the_end_of_the_context() -> None:
    model = large(TREES["llama"])
    cache = PrefixCache(model)
    logits(cache, [1, 2], [3])
    prompt, new = [1, 2, 3, *range(4, 14)], list(range(LONGEST - 13))
    assert relative_error(logits(cache, prompt, new), logits(model, prompt, new)) < 1e-9


@pytest.mark.parametrize("guessing", [False, True])
def test_a_conversation_says_what_it_says_without(guessing: bool) -> None:
    own = tokenizer()
    tree = TREES["llama"].model_copy(update={"vocab_size": own.vocab_size, "max_length": 200})
    model = large(tree).float()
    plain = Generator(model, own, config.Generation(max_tokens=12))
    counting = Counting(Runner(model))
    kept = Generator(model, own, config.Generation(max_tokens=12), backend=counting).with_prefix_cache()
    told: dict[str, Any] = {"speculation": Speculation(PromptLookup(), 3) if guessing else None}
    text, read = own.encode(["one two three"])[0], 0
    for turn in ("four", "one two", "seven eight nine", "two"):
        text += own.encode([turn])[0]
        expected = plain.stream(text, **told)
        found = kept.stream(text, **told)
        assert "".join(found) == "".join(expected)
        assert found.completion.tokens == expected.completion.tokens
        assert counting.read - read < 12 * (4 if guessing else 1) + 12
        read = counting.read
        text += found.completion.tokens
    assert len(text) > 50
    assert own.vocab_size > VOCABULARY
