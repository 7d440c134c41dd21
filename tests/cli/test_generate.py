"""`sublayer generate` and `sublayer chat`, on a model that is a table."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from generation.prompted import generator
from small_run import Outcome, sublayer, trained
from sublayer import config
from sublayer.cli import chat as chat_command
from sublayer.cli.decoding import load_generator, search_of
from sublayer.errors import ConfigError
from sublayer.generation.completion import Stream
from sublayer.generation.generator import Generator

PROMPTS = ["one two", "three", "five six seven"]
STDIN = "".join(f"{prompt}\n" for prompt in PROMPTS).encode()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Generator[Any]:
    own = generator(1, end_bias=2.0, order=None, max_tokens=12)
    for module in ("generate", "chat", "decoding"):
        monkeypatch.setattr(f"sublayer.cli.{module}.load_generator", lambda path, device, weights=None: own)
    return own


def succeeded(outcome: Outcome) -> str:
    assert outcome.code == 0, outcome.err
    return outcome.out


# --- generate ----------------------------------------------------------------------------------------------------


def test_a_prompt_and_several(made: Generator[Any]) -> None:
    texts = [one.text for one in made.generate(PROMPTS)]
    for prompt, text in zip(PROMPTS, texts):
        assert succeeded(sublayer("generate", "lm", prompt)) == text + "\n"
    for batch in (1, 2, 64):
        assert succeeded(sublayer("generate", "lm", "--batch", batch, stdin=STDIN)) == "".join(
            f"{text}\n" for text in texts
        )
    assert sublayer("generate", "lm", stdin=b"").out == ""


def test_what_is_cut_is_reported(made: Generator[Any]) -> None:
    cut = [n for n, one in enumerate(made.generate(PROMPTS, max_tokens=3), start=1) if one.best.ended == "length"]
    outcome = sublayer("generate", "lm", "--max-tokens", 3, stdin=STDIN)
    assert [int(line.split()[1][:-1]) for line in outcome.err.splitlines()] == cut != []


def test_json_says_everything(made: Generator[Any]) -> None:
    options = ("--temperature", 2, "--top-k", 50, "--top-p", 0.9, "--min-p", 0.01, "--seed", 7, "-n", 2)
    search = config.Sampling(temperature=2.0, top_k=50, top_p=0.9, min_p=0.01)
    expected = made.generate(PROMPTS, search=search, n=2, seed=7, log_probabilities=True)
    for batch in (2, 64):
        out = succeeded(sublayer("generate", "lm", *options, "--json", "--batch", batch, stdin=STDIN))
        rows = [json.loads(line) for line in out.splitlines()]
        assert [row["prompt"] for row in rows] == PROMPTS
        for row, one in zip(rows, expected, strict=True):
            assert row["prompt_tokens"] == one.prompt_tokens
            for said, completion in zip(row["completions"], one.completions, strict=True):
                assert said["text"] == completion.text
                assert said["tokens"] == completion.tokens
                assert said["ended"] == completion.ended
                assert said["log_probabilities"] == pytest.approx(completion.log_probabilities, abs=1e-5)
                assert said["log_probability"] == pytest.approx(sum(said["log_probabilities"]), abs=1e-5)
    plain = succeeded(sublayer("generate", "lm", *options, stdin=STDIN))
    assert plain == "".join(f"{completion.text}\n" for one in expected for completion in one.completions)


def test_every_option_reaches_the_search(made: Generator[Any]) -> None:
    def said(*options: object) -> str:
        return succeeded(sublayer("generate", "lm", "one two", *options))

    def asked(**options: Any) -> str:
        return made.generate(["one two"], **options)[0].text + "\n"

    constraints = config.Constraints(repetition_penalty=3.0, no_repeat_ngram=1, min_length=8)
    assert said("--repetition-penalty", 3, "--no-repeat-ngram", 1, "--min-length", 8) == asked(constraints=constraints)
    assert said("--beam", 3, "--length-penalty", 0) == asked(search=config.Beam(size=3, length_penalty=0.0))
    assert said("--temperature", 0) == said("--beam", 1) == asked(search=config.Greedy())
    letter = made.generate(["one two"])[0].text[3]
    assert said("--stop", letter) == asked(stop=[letter])
    assert said("--stop", letter) != asked()
    two = sublayer("generate", "lm", "one two", "--beam", 3, "-n", 2)
    beams = made.generate(["one two"], search=config.Beam(size=3), n=2)[0].completions
    assert succeeded(two) == "".join(f"{one.text}\n" for one in beams)
    assert said("--lookup") == said("--draft", "small", "--guesses", 2) == asked()


def test_what_was_asked_for_cannot_be(made: Generator[Any]) -> None:
    for options, message in [
        (("--temperature", 1, "--beam", 2), "sampling and a beam were both asked for"),
        (("--draft", "small", "--lookup"), "--draft and --lookup were both given"),
        (("-n", 2), "greedy search has only one answer"),
        (("--max-tokens", 60, "--beam", 2), "remain of the model's context of 60"),
        (("--repetition-penalty", -1), "repetition_penalty"),
        (("--stop", ""), "stop"),
    ]:
        outcome = sublayer("generate", "lm", "one", *options)
        assert outcome.code == 2
        [complaint] = outcome.complaints
        assert message in complaint
    outcome = sublayer("generate", "lm", stdin=b"one\n\xff\n")
    assert outcome.code == 2
    assert "line 2: not UTF-8" in outcome.err
    assert outcome.out == succeeded(sublayer("generate", "lm", "one")), "what stood before is still answered"


def test_what_stands_before_a_refused_line_is_answered(made: Generator[Any]) -> None:
    long = " ".join(["one"] * 70)
    outcome = sublayer("generate", "lm", stdin=f"one two\nthree\n{long}\nfour\n".encode())
    assert outcome.code == 2
    assert "prompt 3 has " in outcome.err
    assert outcome.out == "".join(f"{one.text}\n" for one in made.generate(["one two", "three"]))


def test_a_translation_model_is_refused() -> None:
    outcome = sublayer("generate", trained(), "ba co")
    assert outcome.code == 2
    assert "does not go on from a prompt" in outcome.err
    assert load_generator.__doc__


def test_options_are_laid_on_the_models_own_search() -> None:
    own = config.Sampling(temperature=0.5, top_k=7)
    assert search_of(own) is own
    assert search_of(own, {"top_p": 0.9}) == config.Sampling(temperature=0.5, top_k=7, top_p=0.9)
    assert search_of(own, beam={"size": 3}) == config.Beam(size=3)
    assert search_of(own, {"temperature": 0.0, "top_k": 3}) == config.Greedy()
    assert search_of(config.Beam(length_penalty=0.2), beam={"size": 2}) == config.Beam(size=2, length_penalty=0.2)
    assert search_of(config.Beam(), {"temperature": 0.8}) == config.Sampling(temperature=0.8)
    with pytest.raises(ConfigError, match="top_p"):
        search_of(own, {"top_p": 0.0})


def test_it_is_shown_as_it_is_made(made: Generator[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece is on its way before the next is made."""
    seen: list[tuple[int, str]] = []

    class Screen(io.StringIO):
        def flush(self) -> None:
            if self.getvalue() and (not seen or seen[-1][1] != self.getvalue()):
                seen.append((made.model.steps, self.getvalue()))

    from sublayer.cli.generate import generate

    monkeypatch.setattr(sys, "stdout", Screen())
    generate(Path("lm"), "one two")
    assert len({steps for steps, _ in seen}) > 3
    assert seen[-1][1] == made.generate(["one two"])[0].text + "\n"


# --- chat --------------------------------------------------------------------------------------------------------


def answers(made: Generator[Any], conversation: list[list[str]], **options: Any) -> list[str]:
    """What is said in turn to each of the turns, a list of them for each conversation; numbers go on."""
    found: list[str] = []
    number = 0
    for turns in conversation:
        messages = [{"role": "system", "content": "Be brief."}]
        for turn in turns:
            messages.append({"role": "user", "content": turn})
            [one] = made.generate([made.encode_chat(messages)], first=number, **options)
            messages.append({"role": "assistant", "content": one.text})
            found.append(one.text)
            number += 1
        number += 1  # the line that says /reset
    return found


def test_a_conversation_is_kept_and_reset(made: Generator[Any]) -> None:
    made.model.max_length = 400
    stdin = b"one\ntwo three\n/reset\none\nfour\n"
    options = ("--system", "Be brief.", "--max-tokens", 6)
    out = succeeded(sublayer("chat", "lm", *options, stdin=stdin))
    expected = answers(made, [["one", "two three"], ["one", "four"]], max_tokens=6)
    assert out == "".join(f"{text}\n" for text in expected)
    assert expected[0] == expected[2]
    assert expected[1] != expected[3]
    sampled = succeeded(sublayer("chat", "lm", *options, "--temperature", 1.5, "--seed", 3, stdin=stdin))
    search = config.Sampling(temperature=1.5)
    expected = answers(made, [["one", "two three"], ["one", "four"]], max_tokens=6, search=search, seed=3)
    assert sampled == "".join(f"{text}\n" for text in expected)
    assert expected[0] != expected[2]
    penalized = succeeded(sublayer("chat", "lm", *options, "--repetition-penalty", 4, stdin=b"one\n"))
    constraints = config.Constraints(repetition_penalty=4.0)
    assert penalized == answers(made, [["one"]], max_tokens=6, constraints=constraints)[0] + "\n"


def test_an_answer_that_is_cut_is_reported(made: Generator[Any]) -> None:
    outcome = sublayer("chat", "lm", "--max-tokens", 1, stdin=b"one\n\n")
    assert outcome.code == 0
    assert outcome.err == "(cut at 1 tokens)\n"


def test_a_conversation_past_the_context(made: Generator[Any]) -> None:
    """Ends a script with an error; at a terminal the turn is refused and the next one asked for."""
    long = " ".join(["one"] * 70)
    outcome = sublayer("chat", "lm", stdin=f"{long}\none\n".encode())
    assert outcome.code == 2
    assert "leaves no room in the model's context of 60" in outcome.err
    outcome = sublayer("chat", "lm", stdin=f"{long}\none\n".encode(), terminal=True)
    assert outcome.code == 0
    assert "leaves no room in the model's context of 60" in outcome.err
    assert "/reset begins a new conversation" in outcome.err
    [expected] = made.generate([made.encode_chat([{"role": "user", "content": "one"}])])
    assert outcome.out == expected.text + "\n"
    assert outcome.err.count("> ") == 3


def test_an_interrupted_answer_stays_in_the_conversation(made: Generator[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made.model.max_length = 400
    plain = Stream.__next__
    seen: list[str] = []

    def interrupted(self: Stream) -> str:
        if len(seen) == 1:
            seen.append("")
            raise KeyboardInterrupt
        seen.append(plain(self))
        return seen[-1]

    monkeypatch.setattr(Stream, "__next__", interrupted)
    outcome = sublayer("chat", "lm", stdin=b"one\ntwo\n")
    assert outcome.code == 130, "a script is ended by it"
    seen.clear()
    asked: list[list[dict[str, str]]] = []
    encode = type(made).encode_chat
    monkeypatch.setattr(type(made), "encode_chat", lambda own, said: asked.append(said) or encode(own, said))
    outcome = sublayer("chat", "lm", stdin=b"one\ntwo\n", terminal=True)
    assert outcome.code == 0
    assert asked[1][1] == {"role": "assistant", "content": seen[0]}
    assert chat_command.RESET == "/reset"


def test_a_text_goes_on_past_the_context(made: Generator[Any]) -> None:
    [expected] = made.generate(["one"], max_tokens=150, constraints=config.Constraints(min_length=150))
    assert len(expected.tokens) == 150
    outcome = sublayer("generate", "lm", "one", "--max-new-tokens", 150, "--min-length", 150)
    assert outcome.out == expected.text + "\n"
