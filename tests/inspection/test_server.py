"""The server of the page: whom it lets in, what it bounds, and that every error is one that the page can show."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from inspection.loaded_models import SENTENCE, generator, translator
from sublayer.errors import InputError
from sublayer.inspection import connections as network
from sublayer.inspection import inspector as asking
from sublayer.inspection import server
from sublayer.inspection.inspector import Busy, GivenUp, Inspector
from sublayer.inspection.listening import addresses, bound, is_exposed, serve
from sublayer.inspection.loaded_model import describe
from sublayer.inspection.look import look
from sublayer.inspection.server import application
from sublayer.inspection.view import Question

HOST = {"host": "127.0.0.1:8642"}
JSON = {**HOST, "content-type": "application/json"}


@pytest.fixture(scope="module")
def inspector() -> Inspector:
    loaded = translator()
    return Inspector(loaded, describe(loaded, "small"))


def call(
    app: Any,
    method: str,
    path: str,
    headers: dict[str, str] = HOST,
    body: bytes = b"",
    *,
    gone: threading.Event | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """One request by the ASGI contract: status, headers, body. gone: when it is set, the other side hangs up."""
    sent: list[dict[str, Any]] = []
    pieces = [body[at : at + 50_000] for at in range(0, len(body), 50_000)] or [b""]

    async def run() -> None:
        async def receive() -> dict[str, Any]:
            if pieces:
                return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}
            while gone is None or not gone.is_set():
                await asyncio.sleep(0.01)
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }  # fmt: skip
        await app(scope, receive, send)

    asyncio.run(run())
    given = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], given, b"".join(message.get("body", b"") for message in sent[1:])


def question(**over: Any) -> bytes:
    return json.dumps({"text": SENTENCE, **over}).encode()


def test_a_question_is_answered_as_look_does(inspector):
    status, headers, body = call(application(inspector), "POST", "/api/view", JSON, question())
    assert status == 200
    assert headers["content-type"] == "application/json"
    expected = look(inspector.loaded, Question(text=SENTENCE), about=inspector.about).plain()
    assert json.loads(body) | {"seconds": 0} == json.loads(json.dumps(expected)) | {"seconds": 0}


def test_the_page_and_its_files(inspector):
    app = application(inspector, text="Where?")
    status, headers, body = call(app, "GET", "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b'src="page/served.js"' in body
    for name in ("served.js", "page.js", "style.css"):
        status, headers, _ = call(app, "GET", f"/page/{name}")
        assert status == 200
        assert headers["content-type"].startswith("text/javascript" if name.endswith("js") else "text/css")
    for name in ("../server.py", "%2e%2e/server.py", "__init__.py", "nothing.js"):
        assert call(app, "GET", f"/page/{name}")[0] == 404
    told = json.loads(call(app, "GET", "/api/model")[2])
    assert (told["about"]["name"], told["text"]) == ("small", "Where?")


def test_every_reply_says_what_a_page_may_do(inspector):
    app = application(inspector)
    for status, headers, _ in (
        call(app, "GET", "/"),
        call(app, "GET", "/nothing"),
        call(app, "GET", "/", {"host": "a.b"}),
    ):
        assert status in (200, 403, 404)
        assert "default-src 'none'; script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8642", "localhost:8642", "localhost", "[::1]:8642", "192.168.1.5:8642", "box.lan"]
)
def test_who_is_let_in(inspector, host):
    assert call(application(inspector, names=frozenset({"box.lan"})), "GET", "/", {"host": host})[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:8642"},  # a name that was made to lead here
        {"host": ""},
        {"host": "127.0.0.1.evil.example"},
        *({"host": host} for host in ("[", "[::1", "]", "a]b", "localhost:x", "evil.example@localhost", "a b", "//")),
        *({**HOST, "origin": origin} for origin in ("http://[", "[", "http://]/", "http://127.0.0.1:8642@evil", "")),
        {},
        {**HOST, "origin": "http://evil.example"},
        {**HOST, "origin": "null"},
        {**HOST, "origin": "http://127.0.0.1:9999"},
        {**HOST, "sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"},
        {**HOST, "sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"},
    ],
)
def test_who_is_not(inspector, headers):
    for method, path in (("GET", "/"), ("GET", "/api/model"), ("POST", "/api/view")):
        status, _, body = call(
            application(inspector), method, path, {**headers, "content-type": "application/json"}, question()
        )
        assert status == 403
        assert json.loads(body)["what"]


def test_a_link_may_lead_here(inspector):
    headers = {**HOST, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert call(application(inspector), "GET", "/", headers)[0] == 200


@pytest.mark.parametrize(
    ("body", "status", "what"),
    [
        (b"{", 400, "not JSON"),
        (b"\xff\xfe", 400, "not UTF-8"),
        (b"[" * 100_000, 400, "nests lists or objects more than"),
        (b"[1]", 400, "no table"),
        (b"{}", 400, "text"),
        (b'{"text": "a", "more": 1}', 400, "more"),
        (b'{"text": ""}', 400, "there is no text"),
        (b'{"text": "\\ud800"}', 400, "half of a surrogate pair"),
        (json.dumps({"text": "keys " * 60}).encode(), 400, "positions end at 48"),
        (b'{"text": "' + b"a" * 300_000 + b'"}', 413, "bytes at most"),
    ],
)
def test_bad_questions(inspector, body, status, what):
    given, _, reply = call(application(inspector), "POST", "/api/view", JSON, body)
    error = json.loads(reply)
    assert (given, set(error)) == (status, {"what", "remedy"})
    assert what in error["what"]


def test_a_form_of_another_page_is_no_question(inspector):
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert call(application(inspector), "POST", "/api/view", {**HOST, "content-type": kind}, question())[0] == 415
    assert call(application(inspector), "GET", "/api/view")[0] == 405


def test_an_error_of_our_own_is_told_and_shows_nothing(inspector, monkeypatch, caplog):
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret path")

    monkeypatch.setattr(asking, "look", broken)
    status, _, body = call(application(inspector), "POST", "/api/view", JSON, question())
    assert status == 500
    assert b"secret" not in body
    assert "a secret path" in caplog.text


def test_the_body_must_come_in_time(inspector, monkeypatch):
    monkeypatch.setattr(server, "READING", 0.05)
    app = application(inspector)
    sent: list[dict[str, Any]] = []

    async def run() -> None:
        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0.02)
            return {"type": "http.request", "body": b"{", "more_body": True}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        headers = [(name.encode(), value.encode()) for name, value in JSON.items()]
        await app(
            {"type": "http", "method": "POST", "path": "/api/view", "headers": headers, "query_string": b""},
            receive,
            send,
        )

    asyncio.run(run())
    assert sent[0]["status"] == 408


# --- one model, in bounded time ----------------------------------------------------------------------------------


def test_an_answer_has_its_time():
    loaded = generator()
    slow = Inspector(loaded, describe(loaded), seconds=1e-9)
    with pytest.raises(Busy, match="more than"):
        slow.answer(Question(text=SENTENCE), threading.Event())
    status, _, body = call(application(slow), "POST", "/api/view", JSON, question())
    assert (status, "--seconds" in json.loads(body)["remedy"]) == (503, True)
    slow.seconds = 60
    assert slow.answer(Question(text=SENTENCE), threading.Event())["output"]["type"] == "text"


def test_no_number_that_json_has_not_is_sent_or_read(inspector, monkeypatch):
    status, _, body = call(application(inspector), "POST", "/api/view", JSON, question(tokens=math.nan))
    assert (status, json.loads(body)["what"]) == (400, "the question has NaN, which is not JSON")
    monkeypatch.setattr(inspector, "_look", lambda asked: {"output": {"sure": math.nan}})
    status, _, body = call(application(inspector), "POST", "/api/view", JSON, question())
    assert status == 400
    assert "is not a finite number" in json.loads(body, parse_constant=lambda word: pytest.fail(word))["what"]


def test_nobody_waits_for_what_was_given_up(inspector):
    given_up = threading.Event()
    given_up.set()
    with pytest.raises(GivenUp):
        inspector.answer(Question(text=SENTENCE), given_up)


def test_who_hangs_up_stops_the_model(monkeypatch):
    asked = threading.Event()

    def endless(*_: Any, check: Any, **__: Any) -> None:
        asked.set()
        while True:
            check()
            time.sleep(0.01)

    monkeypatch.setattr(asking, "look", endless)
    loaded = generator()
    begun = time.monotonic()
    status, _, _ = call(
        application(Inspector(loaded, describe(loaded))), "POST", "/api/view", JSON, question(), gone=asked
    )
    assert status == 499
    assert time.monotonic() - begun < 5


def test_questions_take_turns(monkeypatch):
    inside, most = 0, 0
    real = asking.look

    def counted(*given: Any, **named: Any) -> Any:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        try:
            return real(*given, **named)
        finally:
            inside -= 1

    monkeypatch.setattr(asking, "look", counted)
    loaded = translator()
    one = Inspector(loaded, describe(loaded))
    off = [{"map": "cross", "layer": 1, "head": 0}]
    asked = [Question.parse({"text": SENTENCE, "silenced": off if turn % 2 else []}, "test") for turn in range(6)]
    found: list[Any] = [None] * len(asked)

    def ask(place: int) -> None:
        found[place] = one.answer(asked[place], threading.Event())

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    # What one switches off is on for the others.
    chances = [answer["output"]["log_probability"] for answer in found]
    assert len(set(chances[::2])) == len(set(chances[1::2])) == 1
    assert chances[0] != chances[1]


def test_too_many_may_not_wait(monkeypatch):
    monkeypatch.setattr(asking, "WAITING", 0)
    loaded = generator()
    with pytest.raises(Busy, match="wait for the model"):
        Inspector(loaded, describe(loaded)).answer(Question(text=SENTENCE), threading.Event())


# --- where it listens --------------------------------------------------------------------------------------------


def test_a_port_that_is_taken():
    with bound("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        assert addresses(first) == [f"http://127.0.0.1:{port}/"]
        with pytest.raises(InputError, match="--port"):
            bound("127.0.0.1", port)
        with bound("127.0.0.1", port, tries=50) as second:
            assert second.getsockname()[1] > port


def test_addresses_that_are_none():
    with pytest.raises(InputError, match="cannot listen"):
        bound("192.0.2.1", 0)
    with pytest.raises(InputError, match="no port"):
        bound("127.0.0.1", 70_000)


def test_what_others_can_reach_is_said():
    with bound("127.0.0.1", 0) as own, bound("0.0.0.0", 0) as everybody:
        assert not is_exposed(own)
        assert is_exposed(everybody)
        port = everybody.getsockname()[1]
        assert addresses(everybody)[0] == f"http://localhost:{port}/"
        # Where this machine has an address for others, it is told; never 0.0.0.0, which is nobody's.
        assert all("0.0.0.0" not in each for each in addresses(everybody))


# --- sockets -----------------------------------------------------------------------------------------------------


@pytest.fixture
def fast_to_lose_patience(monkeypatch):
    for module in (network, server):
        monkeypatch.setattr(module, "READING", 2.0)


@contextmanager
def running(inspector: Inspector) -> Iterator[tuple[str, int]]:
    """`serve`, as the command runs it, in a thread of its own."""
    import uvicorn

    servers: list[uvicorn.Server] = []
    begin = uvicorn.Server.run

    def kept(self: uvicorn.Server, sockets: Any = None) -> None:
        servers.append(self)
        begin(self, sockets)

    with pytest.MonkeyPatch.context() as patch, bound("127.0.0.1", 0) as listening:
        patch.setattr(uvicorn.Server, "run", kept)
        where = listening.getsockname()[:2]
        thread = threading.Thread(target=serve, args=(application(inspector), listening))
        thread.start()
        try:
            yield where
        finally:
            while not servers:
                time.sleep(0.01)
            servers[0].should_exit = True
            thread.join(10)
            assert inspector.close()
            assert not thread.is_alive()


def asked(where: tuple[str, int], body: bytes) -> tuple[int, float]:
    """The status of one question's reply, and the seconds it took."""
    begun = time.monotonic()
    head = f"POST /api/view HTTP/1.1\r\nHost: {where[0]}:{where[1]}\r\nContent-Type: application/json\r\n"
    with socket.create_connection(where, timeout=30) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        held = b""
        while part := connection.recv(65536):
            held += part
    return int(held.split(b" ", 2)[1]), time.monotonic() - begun


def endless(*_: Any, check: Any, **__: Any) -> Any:
    """A model that takes for ever, and looks at the clock."""
    while True:
        check()
        time.sleep(0.01)


def test_sixty_questions_at_once_are_each_answered_or_refused_in_their_time(monkeypatch):
    """The default executor queued them unseen: 54 of 60 waited longer than `--seconds`."""
    real = asking.look

    def slow(*given: Any, **named: Any) -> Any:
        time.sleep(0.3)
        return real(*given, **named)

    monkeypatch.setattr(asking, "look", slow)
    loaded = translator()
    seconds = 3.0
    with running(Inspector(loaded, describe(loaded), seconds)) as where, ThreadPoolExecutor(60) as crowd:
        replies = list(crowd.map(lambda _: asked(where, question()), range(60)))
    assert {status for status, _ in replies} == {200, 503}
    assert sum(status == 200 for status, _ in replies) >= 2
    assert max(took for _, took in replies) < seconds + 2


def test_the_time_is_kept_by_a_model_that_does_not_look_at_the_clock(monkeypatch):
    done = threading.Event()
    monkeypatch.setattr(asking, "look", lambda *_, **__: done.wait(20))
    loaded = translator()
    try:
        with running(Inspector(loaded, describe(loaded), seconds=1.0)) as where:
            status, took = asked(where, question())
            assert status == 503
            assert took < 3
            # Who asks next is told in time, too.
            status, took = asked(where, question())
            assert status == 503
            assert took < 3
            done.set()
            time.sleep(0.2)
            monkeypatch.setattr(asking, "look", endless)
    finally:
        done.set()


@pytest.mark.usefixtures("fast_to_lose_patience")
@pytest.mark.parametrize(
    "held",
    [
        b"",
        b"GET / HT",
        b"POST /api/view HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
    ],
    ids=["nothing", "half a line", "half a body"],
)
def test_two_hundred_slow_connections_shut_nobody_out(inspector, held, monkeypatch):
    """They held the page for over 36 s."""
    # What is tried is who gets through to the model, not the model.
    view = look(inspector.loaded, Question(text=SENTENCE), about=inspector.about)
    monkeypatch.setattr(asking, "look", lambda *_, **__: view)
    one = Inspector(inspector.loaded, inspector.about, seconds=30.0)
    with running(one) as where, ExitStack() as slow, ThreadPoolExecutor(6) as crowd:
        connections = [slow.enter_context(socket.create_connection(where, timeout=30)) for _ in range(200)]
        for connection in connections:
            with suppress(OSError):  # it has given way already
                connection.sendall(held)
        replies = list(crowd.map(lambda _: asked(where, question()), range(60)))
        assert [status for status, _ in replies] == [200] * 60
        assert max(took for _, took in replies) < 30
        # And each of the slow ones is closed in the end.
        for connection in connections:
            with suppress(ConnectionResetError):
                while connection.recv(65536):
                    pass


def test_control_c_ends_it_and_twice_at_once(tmp_path):
    program = (
        "import sys, threading, time\n"
        "from sublayer.inspection import inspector\n"
        "from sublayer.inspection.listening import bound, serve\n"
        "from sublayer.inspection.server import application\n"
        "listening = bound('127.0.0.1', 0)\n"
        "inspector.look = lambda *_, **__: time.sleep(600)\n"
        "print(listening.getsockname()[1], flush=True)\n"
        "serve(application(inspector.Inspector(None, None, 600)), listening)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            body = question()
            with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                head = "POST /api/view HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                time.sleep(1)
                process.send_signal(signal.SIGINT)
                time.sleep(0.3)
                begun = time.monotonic()
                process.send_signal(signal.SIGINT)
                assert process.wait(5) == 128 + signal.SIGINT
                assert time.monotonic() - begun < 1
        finally:
            process.kill()
