"""What a request gets in company is what it gets alone, to the token: asked of running servers.

The oracle is the library: each text by itself, in a batch of one.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import requests
import torch

from served import LINES, Running, generator, models, running, translator
from sublayer import config
from sublayer.generation import sampling
from sublayer.generation.generator import Generator
from sublayer.generation.randomness import uniform
from sublayer.generation.sampling import sample
from sublayer.models import DecoderState
from sublayer.serving.limits import BatchLimits
from sublayer.serving.prefixes import Prefixes
from sublayer.serving.scheduler import Scheduler

# Small enough that texts wait, that long prompts are read in pieces and that the cache is made anew.
TIGHT = BatchLimits(rows=8, cache_tokens=1400, chunk=24, prefixes=256)


def drawn(seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A request for a text, and the same as the library takes it."""
    draw = random.Random(seed)
    begin = "the house of the old man " * draw.choice([0, 0, 1, 4])
    prompt = begin + " ".join(draw.choices(" ".join(LINES).split(), k=draw.randint(1, 20)))
    asked: dict[str, Any] = {"prompt": prompt, "max_tokens": draw.randint(1, 24)}
    wanted: dict[str, Any] = {"max_tokens": asked["max_tokens"], "stop": []}
    match draw.randrange(4):
        case 0:
            asked["temperature"] = 0
            wanted["search"] = config.Greedy()
        case 1:
            asked["num_beams"] = draw.choice([2, 3])
            wanted["search"] = config.Beam(size=asked["num_beams"])
        case _:
            asked |= {"temperature": draw.choice([0.7, 1.0]), "top_p": draw.choice([0.9, 1.0]), "seed": seed}
            asked["n"] = draw.choice([1, 1, 3])
            wanted["search"] = config.Sampling(temperature=asked["temperature"], top_p=asked["top_p"])
            wanted |= {"seed": seed, "n": asked["n"]}
    if draw.random() < 0.3:
        asked["repetition_penalty"] = 1.3
        wanted["constraints"] = config.Constraints(repetition_penalty=1.3)
    if draw.random() < 0.3:
        asked["stop"] = wanted["stop"] = [draw.choice("aeiou")]
    return asked, wanted


def at_once(calls: list[Callable[[], Any]], *, seed: int) -> list[Any]:
    """All calls from many clients, which come at random times within half a second."""
    draw = random.Random(seed)
    waits = [draw.random() * 0.5 for _ in calls]

    def call(number: int) -> Any:
        time.sleep(waits[number])
        return calls[number]()

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(call, range(len(calls))))


def lined_up(calls: list[Callable[[], Any]], server: Running) -> list[Any]:
    """All calls while the model's thread is held, each once the one before waits: the same batches every time."""
    runs = server.server.models.by_name["lm"].runs
    assert isinstance(runs, Scheduler)
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go_on.wait(100)

    with ThreadPoolExecutor(len(calls) + 1) as threads:
        holding = threads.submit(lambda: asyncio.run(runs.call(hold)))
        try:
            assert held.wait(60), "the model's thread could not be held"
            asked: list[Future[Any]] = []
            for call in calls:
                waiting = server.metric("queue_texts")
                asked.append(threads.submit(call))
                while server.metric("queue_texts") == waiting:
                    assert not asked[-1].done(), asked[-1].result()
                    time.sleep(0.001)
        finally:
            go_on.set()
        holding.result()
        return [one.result() for one in asked]


def posted(server: Running, path: str, body: dict[str, Any]) -> Any:
    reply = requests.post(f"{server.address}{path}", json=body, timeout=100)
    assert reply.status_code == 200, reply.text
    return reply.json()


@pytest.mark.parametrize("in_line", [False, True], ids=["by chance", "in line"])
@pytest.mark.parametrize("who", ["engine", "modules", "fixed-shapes", "recurrent"])
def test_a_language_model(who: str, in_line: bool) -> None:
    made: dict[str, Callable[[], Generator[Any]]] = {
        "engine": generator,
        "modules": lambda: generator(exact=True),
        "fixed-shapes": lambda: generator("fixed-shapes"),
        "recurrent": lambda: models()["rnn"],  # type: ignore[dict-item, return-value]
    }
    company(made[who](), shares=who != "recurrent", in_line=in_line)


def company(alone: Generator[Any], *, shares: bool = True, in_line: bool = False) -> None:
    """Ask a server with this model for 48 texts at once.

    shares: whether its states can be forked. in_line: the texts come in one order and run in the same batches every
    time; else who joins whom is a matter of time.
    """
    pairs = [drawn(seed) for seed in range(48)]
    expected = [
        [one.text for one in alone.generate([asked["prompt"]], **wanted)[0].completions] for asked, wanted in pairs
    ]
    with running({"lm": alone}, batch=TIGHT) as server:
        calls = [lambda asked=asked: posted(server, "/v1/completions", asked) for asked, _ in pairs]
        found = lined_up(calls, server) if in_line else at_once(calls, seed=1)
        for (asked, _), reply, texts in zip(pairs, found, expected, strict=True):
            assert [choice["text"] for choice in reply["choices"]] == texts[: asked.get("n", 1)], asked
        assert server.metric("shared_tokens_total") > 0 or not shares, "no beginning was shared"
        steps = server.metric("time_between_tokens_seconds_count")
        assert server.metric("generated_tokens_total") > steps, "nothing ran together"


def _no_padding(self: DecoderState, sentences: torch.Tensor, other: DecoderState) -> None:
    whole(self, sentences, other)
    assert self.padding is not None
    self.padding[sentences] = 0


def _one_short(self: Prefixes, ids: Sequence[int], capacity: int) -> tuple[int, Any] | None:
    found = forked(self, ids, capacity)
    return None if found is None else (found[0], found[1].fork(found[0] - 1, capacity))


def _by_the_row(logits: torch.Tensor, uniforms: Sequence[float]) -> torch.Tensor:
    return sample(logits, [uniform(row, 0) for row in range(len(uniforms))])


whole, forked = DecoderState.replace, Prefixes.fork


@pytest.mark.parametrize(
    ("where", "name", "mutated"),
    [(DecoderState, "replace", _no_padding), (Prefixes, "fork", _one_short), (sampling, "sample", _by_the_row)],
)
def test_the_law_can_fail(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, mutated: Any) -> None:
    """With a mistake as one makes it: padding, a beginning or randomness of somebody else's."""
    monkeypatch.setattr(where, name, mutated)
    with pytest.raises(AssertionError, match="'prompt'"):
        company(generator(), in_line=True)


@pytest.mark.parametrize("exact", [False, True], ids=["engine", "modules"])
def test_a_translator(exact: bool) -> None:
    alone = translator(exact=exact)
    draw = random.Random(3)
    words = " ".join(LINES).replace("?", "").replace(".", "").split()
    sentences = [" ".join(draw.choices(words, k=draw.randint(1, 12))) for _ in range(60)]
    answers = [draw.choice([1, 1, 2, 5]) for _ in sentences]
    expected = [
        [one.text for one in alone.translate([sentence], beam=max(3, count), n_best=count)[0].n_best]
        for sentence, count in zip(sentences, answers, strict=True)
    ]
    with running({"en-es": alone}, batch=BatchLimits(rows=24, chunk=40)) as server:
        told = {"source": "en", "target": "es"}
        calls = [
            lambda q=q, count=count: posted(server, "/translate", {**told, "q": q, "alternatives": count - 1})
            for q, count in zip(sentences, answers, strict=True)
        ]
        for reply, texts in zip(at_once(calls, seed=2), expected, strict=True):
            assert [reply["translatedText"], *reply.get("alternatives", [])] == texts


def test_greedy_translation_and_log_likelihoods_beside_others() -> None:
    """Requests of every kind in one batch of one row each."""
    alone = translator(beam=1)
    writer = generator()
    with running({"en-es": alone, "lm": writer}, batch=TIGHT) as server:
        calls: list[Callable[[], Any]] = []
        for number, line in enumerate(LINES * 3):
            body: dict[str, Any] = {
                "model": "lm",
                "prompt": line,
                "max_tokens": 1,
                "echo": True,
                "logprobs": number % 3,
            }
            calls.append(lambda body=body: posted(server, "/v1/completions", body))
            q = line.replace("?", ",").replace(".", ",").strip(",")
            calls.append(lambda q=q: posted(server, "/translate", {"q": q, "source": "en", "target": "es"}))
        found = at_once(calls, seed=4)
    for number, line in enumerate(LINES * 3):
        scored, translated = found[2 * number : 2 * number + 2]
        ids = writer.encode(line)
        with torch.no_grad():
            known = writer.model(torch.tensor([ids]))[0].log_softmax(-1)  # type: ignore[operator]
        gains = scored["choices"][0]["logprobs"]["token_logprobs"]
        assert gains[0] is None
        assert gains[1 : len(ids)] == pytest.approx(
            [known[at, token].item() for at, token in enumerate(ids[1:])], abs=1e-4
        )
        q = line.replace("?", ",").replace(".", ",").strip(",")
        assert translated["translatedText"] == alone.translate([q])[0].text
