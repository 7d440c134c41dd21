"""Prompts in, texts out: against the searches that it is made of, batched against single, streamed against whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from generation.fakes import LanguageTable, plain_beam, plain_greedy
from generation.prompted import generator, tokenizer
from sublayer import config
from sublayer.errors import ConfigError, InputError
from sublayer.generation.completion import Completion
from sublayer.generation.generator import Generator
from sublayer.generation.plan import Speculation
from sublayer.generation.speculative import PromptLookup

SAMPLING = config.Sampling(temperature=1.5, top_k=40)
PROMPTS = ["one two", "three", "one two three four five six seven", "", "ä two", "six seven one"]


def words(ids: list[int], before: list[int], kind: str = "bpe") -> str:
    """What tokens add to those before them."""
    whole, head = tokenizer(kind).decode([[*before, *ids], before])
    return whole[len(head) :]


# --- what comes out ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_greedy_texts_in_order(seed: int) -> None:
    made = generator(seed, end_bias=2.5, max_tokens=12)
    table = made.model
    results = made.generate(PROMPTS, log_probabilities=True, batch_tokens=60)
    assert [one.prompt for one in results] == PROMPTS
    for prompt, one in zip(PROMPTS, results):
        assert one.prompt_tokens == made.encode(prompt)
        text = tuple(one.prompt_tokens)
        expected = plain_greedy(
            lambda said, text=text: table.after((*text, *said[1:])).log_softmax(-1).tolist(),
            start=text[-1],
            end=made.tokenizer.end_id,
            limit=12,
        )
        [completion] = one.completions
        assert completion.tokens == expected.tokens == one.tokens
        assert completion.ended == ("end" if expected.complete else "length")
        assert completion.text == words(expected.tokens, one.prompt_tokens) == one.text
        assert completion.log_probability == pytest.approx(expected.log_probability, rel=1e-5)
        assert len(completion.log_probabilities or []) == len(expected.tokens) + expected.complete
    assert {one.best.ended for one in results} == {"end", "length"}


def test_a_token_beyond_the_tokenizer_has_no_text() -> None:
    """Many a checkpoint has more rows than its tokenizer has tokens, and may say one of them."""
    own = tokenizer()
    rows = own.vocab_size + 20
    table = LanguageTable(rows, 0, end_id=own.end_id, end_bias=-50.0, max_length=60)
    for search in (config.Greedy(), config.Sampling(temperature=50.0)):
        made = Generator(table, own, config.Generation(search=search, max_tokens=40))
        [one] = made.generate(["one two"], seed=5)
        said = [token for token in one.tokens if token < own.vocab_size]
        assert len(one.tokens) == 40
        assert one.text == words(said, one.prompt_tokens)
        assert "".join(made.stream("one two", seed=5)) == one.text
        if isinstance(search, config.Sampling):
            assert len(said) < len(one.tokens)


def test_beams_in_order() -> None:
    made = generator(1, end_bias=5.0, max_tokens=6)
    table = made.model
    beam = config.Beam(size=3, length_penalty=0.5)
    results = made.generate(PROMPTS, search=beam, n=2, log_probabilities=True, batch_tokens=100)
    for one in results:
        text = tuple(one.prompt_tokens)
        expected = plain_beam(
            lambda said, text=text: table.after((*text, *said[1:])).log_softmax(-1).tolist(),
            start=text[-1],
            end=made.tokenizer.end_id,
            limit=6,
            beam=3,
            penalty=0.5,
        )
        assert [completion.tokens for completion in one.completions] == [h.tokens for h in expected[:2]]
        for completion, hypothesis in zip(one.completions, expected):
            assert completion.log_probability == pytest.approx(hypothesis.log_probability, rel=1e-5)
            assert completion.ended == ("end" if hypothesis.complete else "length")


@pytest.mark.parametrize("n", [1, 3])
def test_samples_are_those_of_each_prompt_alone(n: int) -> None:
    made = generator(2, max_tokens=20)
    options: dict[str, Any] = {"search": SAMPLING, "n": n, "seed": 5, "stop": ["e"], "log_probabilities": True}
    together = made.generate(PROMPTS, **options)
    assert together == made.generate(PROMPTS, **options, batch_tokens=1)
    for row, prompt in enumerate(PROMPTS):
        [alone] = made.generate([prompt], first=row, **options)
        assert alone == together[row]
    later = made.generate(PROMPTS[2:], first=2, **options)
    assert later == together[2:]
    other = made.generate(PROMPTS, **{**options, "seed": 6})
    assert [one.tokens for one in other] != [one.tokens for one in together]
    samples = made.generate(PROMPTS, **{**options, "seed": None})
    assert [one.tokens for one in samples] != [one.tokens for one in together]
    texts = [tuple(completion.tokens) for one in together for completion in one.completions]
    assert len(set(texts)) > len(texts) * 0.8
    # The same prompt twice is two samples.
    twice = made.generate([PROMPTS[0]] * 2, **options)
    assert twice[0].tokens != twice[1].tokens


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("stop", [(), ("e", " th"), ("ä",)])
@pytest.mark.parametrize("search", [config.Greedy(), SAMPLING, config.Beam(size=2)])
def test_a_stream_is_the_whole_in_pieces(kind: str, stop: tuple[str, ...], search: config.Search) -> None:
    for seed in range(4):
        made = generator(seed, kind=kind, search=search, stop=stop, max_tokens=25, end_bias=3.0)
        for row, prompt in enumerate(PROMPTS):
            [whole] = made.generate([prompt], seed=seed, first=row, log_probabilities=True)
            stream = made.stream(prompt, seed=seed, first=row, log_probabilities=True)
            pieces = list(stream)
            assert all(pieces)
            assert "".join(pieces) == whole.text == stream.text
            assert stream.completion == whole.best
            if not stop:
                assert whole.text == words(whole.tokens, whole.prompt_tokens, kind)
            assert not any(one in whole.text for one in stop)
            assert (whole.best.ended == "stop") == any(
                one in words(whole.tokens, whole.prompt_tokens, kind) for one in stop
            )


def test_a_stream_is_made_as_it_is_read() -> None:
    made = generator(0, end_bias=-20.0, max_tokens=30)
    pieces = made.stream("one two")
    assert made.model.steps == 0
    next(pieces)
    assert 1 <= made.model.steps < 10
    with pytest.raises(AssertionError, match="not at its end"):
        _ = pieces.completion
    assert not torch.is_inference_mode_enabled(), "the reader's own tensors are none of ours"


def test_end_ids_and_the_models_own_decoding() -> None:
    plain = generator(3, end_bias=-20.0, max_tokens=8).generate(["one"])[0]
    made = generator(3, end_bias=-20.0, max_tokens=8, end_ids=(plain.tokens[2],))
    one = made.generate(["one"])[0]
    cut = plain.tokens.index(plain.tokens[2])
    assert (one.tokens, one.best.ended) == (plain.tokens[:cut], "end")
    banned = made.generate(["one"], constraints=config.Constraints(banned=(plain.tokens[0],)))[0]
    assert banned.tokens[0] != plain.tokens[0]
    assert made.generate(["one"], max_tokens=1)[0].best.ended == "length"


def test_prompts_of_tokens_and_progress() -> None:
    made = generator(0, max_tokens=5)
    done: list[int] = []
    ids = [made.encode(prompt) for prompt in PROMPTS]
    of_tokens = made.generate(ids, progress=done.append, batch_tokens=30)
    assert [one.completions for one in of_tokens] == [one.completions for one in made.generate(PROMPTS)]
    assert sum(done) == len(PROMPTS)
    assert len(done) > 1
    assert made.generate([]) == []


# --- speculation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [(), ("e",)])
def test_speculation_changes_no_greedy_text(stop: tuple[str, ...]) -> None:
    made = generator(1, max_tokens=20, stop=stop)
    own = made.model
    draft = LanguageTable(own.vocab_size, 9, order=2, near=own, likeness=0.7, max_length=60)
    expected = made.generate(PROMPTS, log_probabilities=True)
    plain, own.steps = own.steps, 0
    for kind in (draft, PromptLookup()):
        found = made.generate(PROMPTS, log_probabilities=True, speculation=Speculation(kind, 3))
        for one, other in zip(found, expected):
            assert (one.tokens, one.text, one.best.ended) == (other.tokens, other.text, other.best.ended)
            assert one.best.log_probabilities == pytest.approx(other.best.log_probabilities, abs=1e-5)
        streamed = made.stream(PROMPTS[2], speculation=Speculation(kind, 3))
        assert "".join(streamed) == expected[2].text
    assert plain > 0


def test_speculation_samples() -> None:
    """For a seed always the same, n of them unlike one another, whatever stands beside them."""
    made = generator(1, max_tokens=10, search=SAMPLING)
    options: dict[str, Any] = {"n": 2, "seed": 3, "speculation": Speculation(generator(4).model, 2)}
    found = made.generate(PROMPTS, **options)
    assert found == made.generate(PROMPTS, **options, batch_tokens=1)
    assert all(one.completions[0] != one.completions[1] for one in found)


# --- errors ------------------------------------------------------------------------------------------------------


def test_errors_name_what_is_wrong_and_what_remains() -> None:
    made = generator(0)
    long = made.encode("one two three")
    cases: list[tuple[Any, dict[str, Any], str]] = [
        ("one", {}, "is one string"),
        ([[]], {}, "prompt 1 is empty"),
        (["one", [5, 400]], {}, "prompt 2 holds token 400, but the vocabulary is 0 to "),
        (["one", [5] * 60], {}, "prompt 2 has 60 tokens, which leaves no room in the model's context of 60"),
        (
            [long],
            {"max_tokens": 60, "search": config.Beam()},
            f"after the {len(long)} tokens of prompt 1 only {60 - len(long)} remain of the model's context of 60",
        ),
        (["one"], {"n": 2}, "greedy search has only one answer"),
        (["one"], {"n": 0}, "n = 0"),
        (["one"], {"n": 3, "search": config.Beam(size=2)}, "n = 3 with a beam of 2"),
        (["one"], {"search": config.Beam(), "speculation": Speculation(PromptLookup())}, "not with a beam"),
        (["one"], {"speculation": Speculation(PromptLookup(), 0)}, "guesses = 0"),
        (["one"], {"speculation": Speculation(LanguageTable(7, 0))}, "has a vocabulary of 7 tokens, the model one of"),
        (["one"], {"constraints": config.Constraints(forced=(999,))}, r"constraints\.forced holds 999"),
    ]
    for prompts, options, message in cases:
        with pytest.raises(InputError, match=message):
            made.generate(prompts, **options)
    small = LanguageTable(made.model.vocab_size, 0, max_length=8)
    with pytest.raises(InputError, match="the draft model's context of 8 tokens is too short"):
        made.generate(["one"], speculation=Speculation(small))
    with pytest.raises(InputError, match="number 12 has 60 tokens".replace("number", "prompt")):
        made.generate([[5] * 60], first=11)
    for wrong in ({"max_tokens": 0}, {"stop": [""]}):
        with pytest.raises(ConfigError):
            made.generate(["one"], **wrong)
    assert made.model.steps == 0, "something was computed before it was refused"


def test_the_context_is_filled_to_its_last_place() -> None:
    made = generator(0, end_bias=-20.0, max_tokens=None)
    ids = made.encode("one two three")
    [full] = made.generate([ids])
    assert len(ids) + len(full.tokens) == 60
    # The model's own limit bends to what remains.
    assert made.generate([[5] * 59])[0].best.ended == "length"
    assert len(made.generate([[5] * 58], max_tokens=2)[0].tokens) == 2


# --- characters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@given(text=st.text(max_size=20), prompt=st.text(alphabet="one twäé 猫🙂", max_size=6))
def test_characters_come_whole_and_at_once(kind: str, text: str, prompt: str) -> None:
    own = tokenizer(kind)
    [before], [tokens] = own.encode([prompt]), own.encode([text])
    characters = own.stream(before)
    shown = ""
    for token in tokens:
        shown += characters.push([token])
        assert words(tokens, before, kind).startswith(shown)
    assert shown + characters.finish() == words(tokens, before, kind)


def test_what_a_completion_says() -> None:
    assert Completion("", [], "end", [-0.5]).log_probability == -0.5
    assert Completion("", [], "end").log_probability is None
