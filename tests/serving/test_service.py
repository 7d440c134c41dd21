"""A grown-up service: who gives up frees its rows, who is too many is told so, what is too much is refused, and a stop
finishes what runs."""

from __future__ import annotations

import json
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import torch

from served import LINES, LONGEST, Running, generator, models, running, tokenizer
from sublayer.errors import InputError
from sublayer.generation.constraints import Allowed, Banned
from sublayer.generation.generator import Generator
from sublayer.generation.loop import Choosing, most_probable
from sublayer.hub.folder import ModelBundle, ModelCard, write
from sublayer.inspection.listening import bound
from sublayer.serving import logs
from sublayer.serving.app import application
from sublayer.serving.keys import Keys
from sublayer.serving.limits import BatchLimits, RequestLimits
from sublayer.serving.metrics import Metrics
from sublayer.serving.running import serve, uvicorn_server
from sublayer.serving.served import Models, ServedModel
from sublayer.serving.server import Server
from sublayer.serving.tickets import Given, Job, Ticket

LONG = {"prompt": "The", "max_tokens": LONGEST - 10, "temperature": 0, "logit_bias": {"2": -100}}


class Slow:
    """A backend that takes its time, so that there is something to interrupt."""

    def __init__(self, model: Any, seconds: float) -> None:
        self.model, self.seconds, self.rows = model, seconds, 0

    def start(self, *given: Any, **more: Any) -> Any:
        return self.model.start(*given, **more)

    def step(self, tokens: torch.Tensor, state: Any) -> torch.Tensor:
        time.sleep(self.seconds)
        self.rows = len(tokens)
        return self.model.step(tokens, state)


def slow(seconds: float = 0.01) -> Generator[Any]:
    made = generator()
    return Generator(made.model, made.tokenizer, made.decoding, backend=Slow(made.model, seconds))


def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)


def post(server: Running, path: str = "/v1/completions", **body: Any) -> requests.Response:
    return requests.post(f"{server.address}{path}", json=body, timeout=60)


@pytest.mark.parametrize("how", ["waits", "streams"])
def test_who_hangs_up_frees_its_rows_within_a_step(how: str) -> None:
    with running({"lm": slow(0.05)}) as server:
        body = json.dumps({**LONG, "n": 4, "stream": how == "streams"}).encode()
        host = server.address.removeprefix("http://")
        with socket.create_connection(host.split(":")) as connection:
            connection.sendall(
                f"POST /v1/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\n\r\n".encode()
                + body
            )
            until(lambda: server.metric("batch_rows") == 4)
            steps = server.metric("time_between_tokens_seconds_count")
        until(lambda: server.metric("batch_rows") == 0)
        # One step was being computed, and one may have begun before the loop heard of it.
        assert server.metric("time_between_tokens_seconds_count") - steps <= 3
        assert post(server, prompt="The", max_tokens=2, temperature=0).status_code == 200


def test_too_many_are_told_when_to_come_again() -> None:
    with running({"lm": slow()}, batch=BatchLimits(rows=1, waiting=2)) as server, ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda _: post(server, **LONG), range(8)))
        statuses = sorted(reply.status_code for reply in replies)
        assert 200 in statuses
        assert 429 in statuses
        refused = next(reply for reply in replies if reply.status_code == 429)
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert server.metric("refused_requests_total") == statuses.count(429)


def test_a_deadline_holds_in_the_queue_and_in_the_batch() -> None:
    limits = RequestLimits(seconds=0.5)
    with (
        running({"lm": slow(0.02)}, batch=BatchLimits(rows=1), limits=limits) as server,
        ThreadPoolExecutor(3) as threads,
    ):
        began = time.monotonic()
        replies = list(threads.map(lambda _: post(server, **LONG), range(3)))
        assert [reply.status_code for reply in replies] == [504] * 3
        assert time.monotonic() - began < 3
        assert "more than 0.5 s" in replies[0].json()["error"]["message"]
        until(lambda: server.metric("batch_rows") == 0 and server.metric("queue_texts") == 0)


def test_a_long_prompt_does_not_stop_the_others() -> None:
    """Between two steps of a text that runs no more than a chunk is read."""
    with running({"lm": slow(0.02)}, batch=BatchLimits(chunk=16)) as server, ThreadPoolExecutor(2) as threads:
        running_text = threads.submit(post, server, prompt="The", max_tokens=60, temperature=0)
        until(lambda: server.metric("batch_rows") == 1)
        long = list(range(3, 163))
        assert post(server, prompt=long, max_tokens=1, temperature=0).status_code == 200
        assert not running_text.done(), "the prompt was read, and the text went on, in turn"
        assert running_text.result().status_code == 200
        assert server.metric("prompt_tokens_total") >= len(long) - 1


def test_prompts_that_begin_alike_are_read_once() -> None:
    begin = list(range(3, 103))
    with running({"lm": generator()}) as server:
        texts = [post(server, prompt=[*begin, 7 + at], max_tokens=5, temperature=0).json() for at in range(5)]
        read = server.metric("prompt_tokens_total")
        assert read < 1.2 * len(begin), f"{read} tokens were read of 5 prompts of 101"
        assert server.metric("shared_tokens_total") >= 4 * (len(begin) - 1)
    alone = generator()
    for at, text in enumerate(texts):
        assert text["choices"][0]["text"] == alone.generate([[*begin, 7 + at]], max_tokens=5)[0].text


def test_a_request_that_can_say_nothing_fails_alone() -> None:
    import asyncio

    with running({"lm": slow()}) as server, ThreadPoolExecutor(1) as threads:
        other = threads.submit(post, server, prompt="The", max_tokens=30, temperature=0)
        until(lambda: server.metric("batch_rows") == 1)
        search = Choosing(most_probable, (Allowed((5,)), Banned((5,))))
        runs: Any = server.server.models.by_name["lm"].runs

        async def ask() -> None:
            ticket = Ticket([Job([3, 4], search, 5, frozenset())], 10)
            runs.submit(ticket)
            async for event in ticket.events():
                assert not isinstance(event, Given)

        with pytest.raises(InputError, match="leave no token"):
            asyncio.run(ask())
        assert other.result().status_code == 200


def test_a_fault_in_the_model_fails_its_batch_and_nothing_else() -> None:
    made = slow()
    with running({"lm": made}) as server:
        backend: Any = made.backend
        whole, backend.step = backend.step, lambda *_: 1 / 0
        reply = post(server, prompt="The secret", max_tokens=3, temperature=0)
        assert reply.status_code == 500
        assert "secret" not in reply.text
        backend.step = whole
        assert post(server, prompt="The", max_tokens=3, temperature=0).status_code == 200


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as made:
        yield made


@pytest.mark.parametrize(
    ("data", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"prompt": NaN}', "application/json", 400),
        (b'{"prompt": "\\ud800"}', "application/json", 400),
        (b'{"a":1,"a":2}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"prompt=x", "application/x-www-form-urlencoded", 415),
        (b"{}", "text/plain", 415),
        (b" " * (4 * 1024 * 1024 + 1), "application/json", 413),
    ],
)
def test_bodies(server: Running, data: bytes, kind: str, status: int) -> None:
    reply = requests.post(f"{server.address}/v1/completions", data=data, headers={"content-type": kind}, timeout=60)
    assert reply.status_code == status
    assert reply.json()["error"]["message"]


def test_headers_and_paths(server: Running) -> None:
    assert requests.get(server.address + "/v1/models", headers={"x": "y" * 100_000}, timeout=60).status_code in (
        400,
        431,
    )
    assert requests.get(server.address + "/nothing/%00/..", timeout=60).status_code == 404
    assert requests.put(server.address + "/translate", timeout=60).status_code == 405
    assert requests.get(server.address + "/health", headers={"host": "evil.example"}, timeout=60).status_code == 403
    stranger = {"origin": "https://evil.example"}
    reply = requests.post(server.address + "/translate", json={}, headers=stranger, timeout=60)
    assert reply.status_code == 403
    assert isinstance(reply.json()["error"], str), "in LibreTranslate's form"
    assert isinstance(requests.put(server.address + "/translate", timeout=60).json()["error"], str)


def test_who_sends_slowly_is_let_go_of() -> None:
    with running({"lm": generator()}, limits=RequestLimits(reading=0.5)) as server:
        host = server.address.removeprefix("http://")
        with socket.create_connection(host.split(":")) as connection:
            connection.sendall(
                f"POST /v1/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
                "content-length: 100\r\n\r\n{".encode()
            )
            connection.settimeout(10)
            assert b" 408 " in connection.recv(4096)


def test_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text("# ours\nalpha\n\n  beta  \n")
    with running({"lm": generator()}, keys=Keys.read(path)) as server:

        def status(**headers: str) -> int:
            return requests.get(server.address + "/v1/models", headers=headers, timeout=60).status_code

        assert [status(), status(authorization="Bearer gamma"), status(authorization="Basic alpha")] == [401] * 3
        refused = requests.get(server.address + "/v1/models", timeout=60)
        assert refused.headers["www-authenticate"] == "Bearer"
        assert refused.json()["error"]["type"] == "authentication_error"
        assert [status(authorization="Bearer alpha"), status(**{"x-api-key": "beta"})] == [200] * 2
        assert requests.get(server.address + "/health", timeout=60).status_code == 200
        assert requests.get(server.address + "/metrics", timeout=60).status_code == 401
    path.write_text("# none\n")
    with pytest.raises(InputError, match="has no key"):
        Keys.read(path)
    with pytest.raises(InputError, match="is missing"):
        Keys.read(tmp_path / "other")
    path.write_bytes(b"\xef\xbb\xbfalpha\r\n")
    assert Keys.read(path).admit("alpha"), "an editor's mark of the encoding is no part of a key"
    path.write_text("alpha\nclé\n")
    with pytest.raises(InputError, match="key 2 has characters that the headers"):
        Keys.read(path)


def loaded_by(load: Callable[[Server], None]) -> tuple[str, Server, Any, Future[None]]:
    """A server whose models are loaded by `load`: its address, it, and its run."""
    server = Server(Models(()), Metrics(), loading=True)
    serving = uvicorn_server(application(server), server, 1.0)
    listening = bound("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    threads = ThreadPoolExecutor(1)
    ended = threads.submit(serve, serving, listening, lambda: load(server))
    threads.shutdown(wait=False)
    return address, server, serving, ended


def test_while_the_models_are_loaded() -> None:
    there = threading.Event()

    def load(server: Server) -> None:
        assert there.wait(30)
        server.models = Models([ServedModel.of("lm", generator(), server.metrics, BatchLimits())])
        server.loading = False

    address, server, serving, ended = loaded_by(load)
    assert requests.get(address + "/health", timeout=60).status_code == 200
    assert requests.get(address + "/metrics", timeout=60).status_code == 200
    waiting = requests.get(address + "/ready", timeout=60)
    assert (waiting.status_code, waiting.json()) == (503, {"status": "loading"})
    for path in ("/v1/models", "/languages"):
        reply = requests.get(address + path, timeout=60)
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")
        assert "are being loaded" in reply.text
    there.set()
    until(lambda: requests.get(address + "/ready", timeout=60).status_code == 200)
    body = {"prompt": "The", "max_tokens": 2, "temperature": 0}
    assert requests.post(address + "/v1/completions", json=body, timeout=60).status_code == 200
    assert server.close(10)
    assert requests.get(address + "/ready", timeout=60).json() == {"status": "stopping"}
    serving.should_exit = True
    assert ended.result(30) is None


def test_models_that_cannot_be_loaded_end_it() -> None:
    def load(_: Server) -> None:
        raise InputError("no such model")

    *_, ended = loaded_by(load)
    with pytest.raises(InputError, match="no such model"):
        ended.result(30)


def test_several_models_that_hang_are_waited_for_together() -> None:
    class Hung:
        def join(self, seconds: float) -> bool:
            waited.append(seconds)
            return threading.Event().wait(seconds)

    waited: list[float] = []
    hung: Any = [SimpleNamespace(name=name, runs=Hung()) for name in "abc"]
    assert not Models(hung).join(0.2)
    assert 0 < waited[0] <= 0.2
    assert waited[1:] == [0.0, 0.0]


def test_metrics(server: Running) -> None:
    post(server, model="lm", prompt="The", max_tokens=3, temperature=0)
    page = requests.get(server.address + "/metrics", timeout=60).text
    for name in ("queue_texts", "batch_rows", "generated_tokens_total", "time_to_first_token_seconds_count"):
        assert re.search(rf'^sublayer_{name}{{model="lm"}} [0-9.e+]+$', page, re.MULTILINE), name
    assert 'sublayer_requests_total{path="/v1/completions",status="200"}' in page
    requests.get(server.address + "/some/secret/path", timeout=60)
    assert "secret" not in requests.get(server.address + "/metrics", timeout=60).text


def test_the_encoders_are_asked_together() -> None:
    own = models()
    with running({name: own[name] for name in ("classifier", "tagger", "filler", "embedder")}) as server:
        texts = [" ".join(["the", "cat", "sat", "on", "a", "mat"][: 1 + at % 6]) for at in range(40)]
        expected: Any = own["classifier"].classify(texts)  # type: ignore[union-attr]
        with ThreadPoolExecutor(20) as threads:
            found = list(threads.map(lambda text: post(server, "/classify", input=text).json()["data"][0], texts))
        for one, other in zip(found, expected, strict=True):
            assert one["label"] == other.label
            assert one["probabilities"] == pytest.approx(other.probabilities, abs=1e-6)
        tagged = post(server, "/tag", input=["the cat sat", "a dog"]).json()["data"]
        assert [one["words"] for one in tagged] == [["the", "cat", "sat"], ["a", "dog"]]
        assert [one["tags"] for one in tagged] == [one.tags for one in own["tagger"].tag(["the cat sat", "a dog"])]  # type: ignore[union-attr]
        filled = post(server, "/fill", input="the [MASK] sat", best=2).json()["data"][0]["masks"]
        assert filled == [[vars(one) for one in own["filler"].fill(["the [MASK] sat"], best=2)[0][0]]]  # type: ignore[union-attr]
        reply = post(server, "/fill", input="no mask")
        assert (reply.status_code, "has no [MASK]" in reply.text) == (400, True)
        pair = post(server, "/classify", input=[["the cat", "a dog"]])
        assert pair.status_code == 200


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "lm"
    bundle = ModelBundle(generator().model, tokenizer(), {"max_tokens": 40})  # type: ignore[arg-type]
    write(path, bundle, ModelCard("", "A model for tests.\n"))
    return path


@contextmanager
def command(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`sublayer serve`, and its address."""
    code = "from sublayer.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert process.stderr is not None
        found = re.search(r"http://\S+[0-9]", line)
        assert found, process.stderr.read()
        yield process, found[0]
    finally:
        process.kill()
        with process:  # which closes its streams
            pass


def test_sigterm_finishes_what_runs_and_refuses_what_comes(folder: Path) -> None:
    with command(f"lm={folder}") as (process, address):
        replies: list[requests.Response] = []

        def ask() -> None:
            body = {"prompt": LINES[0], "max_tokens": 150, "n": 16, "temperature": 1.0, "logit_bias": {"2": -100}}
            replies.append(requests.post(address + "/v1/completions", json=body, timeout=60))

        asking = threading.Thread(target=ask)
        asking.start()
        page = ""
        while 'sublayer_batch_rows{model="lm"} 16.0' not in page:
            page = requests.get(address + "/metrics", timeout=60).text
        process.send_signal(signal.SIGTERM)
        statuses: list[int] = []
        while 503 not in statuses and process.poll() is None and len(statuses) < 200:
            try:
                body = {"prompt": "x", "max_tokens": 1}
                statuses.append(requests.post(address + "/v1/completions", json=body, timeout=60).status_code)
            except requests.ConnectionError:
                break
        asking.join()
        assert 503 in statuses
        [reply] = replies
        assert reply.status_code == 200
        assert all(choice["finish_reason"] == "length" for choice in reply.json()["choices"])
        assert process.wait(20) == 0


def test_the_log_has_lines_of_json_and_no_text(folder: Path) -> None:
    with command(f"lm={folder}") as (process, address):
        secret = "Xyzzy"
        for body in (
            {"prompt": secret, "max_tokens": 2},
            {"prompt": secret, secret: 1},
            {"model": secret, "prompt": ""},
        ):
            requests.post(address + "/v1/completions", json=body, headers={"x-secret": secret}, timeout=60)
        requests.get(f"{address}/{secret}?{secret}", timeout=60)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
    lines = [json.loads(line) for line in log.splitlines()]
    assert [line["status"] for line in lines if "status" in line] == [200, 400, 404, 404]
    assert secret not in log


def test_what_the_libraries_say_is_a_line_of_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    loggers = [logging.getLogger(name) for name in ("sublayer.serve", "sublayer.serve.access", "asyncio", "uvicorn")]
    before = [(logger, logger.level, logger.propagate, logger.handlers[:]) for logger in loggers]
    try:
        logs.to_standard_error(requests=False)
        logging.getLogger("asyncio").warning("socket.send() raised exception.")
        try:
            raise ValueError("Xyzzy")
        except ValueError:
            logging.getLogger("uvicorn.error").exception("Exception in ASGI application\n")
    finally:
        for logger, level, propagate, handlers in before:
            logger.setLevel(level)
            logger.propagate, logger.handlers[:] = propagate, handlers
    one, other = map(json.loads, capsys.readouterr().err.splitlines())
    assert (one["level"], one["message"]) == ("warning", "socket.send() raised exception.")
    assert (other["error"], "Xyzzy" in str(other)) == ("ValueError", False)


def test_killed_and_started_again_it_serves(folder: Path) -> None:
    for _ in range(2):
        with command(f"lm={folder}") as (process, address):
            body = {"prompt": "The", "max_tokens": 2}
            assert requests.post(address + "/v1/completions", json=body, timeout=60).status_code == 200
            process.kill()


def test_what_the_command_says(folder: Path, tmp_path: Path) -> None:
    def said(*arguments: str) -> str:
        code = "from sublayer.cli.main import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, "serve", *arguments], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 2
        return done.stderr

    assert "two models are called 'lm'" in said(f"lm={folder}", f"lm={folder}")
    assert "there is no folder" in said(str(tmp_path / "none"))
    with command(f"lm={folder}", "--host", "0.0.0.0") as (process, _):
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
        assert "warning: whoever can reach this machine's network address can use the models" in log
