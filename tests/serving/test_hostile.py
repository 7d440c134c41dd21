"""Requests that nobody would write: no 500, and nothing hangs.

By hypothesis, from the fields that the server knows with values that it does not expect, and by schemathesis, from the
server's own OpenAPI document. `make hostile` asks more of both (HOSTILE_EXAMPLES=5000).
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from served import Running, models, running
from sublayer.serving.limits import BatchLimits, RequestLimits
from sublayer.serving.openapi import document
from sublayer.serving.routes import PATHS

EXAMPLES = int(os.environ.get("HOSTILE_EXAMPLES", "200"))
SECONDS = 20.0
POSTS = [path for path in PATHS if path.asks is not None]


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    limits = RequestLimits(seconds=10, reading=5)
    with running(models(), batch=BatchLimits(rows=16, cache_tokens=4096), limits=limits) as made:
        yield made
        for name in models():
            assert made.metric("batch_rows", name) == 0, f"{name} has lost rows"
        body = {"model": "lm", "prompt": "The", "max_tokens": 1}
        assert requests.post(f"{made.address}/v1/completions", json=body, timeout=SECONDS).status_code == 200


TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["", " ", "</s>", "[MASK] the", "\x00", "<p>", "🙂" * 50, "é" * 3000, "the cat sat on a mat", "%s%n"]
    ),
)
LEAVES = st.one_of(
    TEXTS,
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, 1, -1, 2**31, 2**63, 1e308, 0.5, 16, 300]),
)
VALUES = st.recursive(
    LEAVES, lambda below: st.lists(below, max_size=4) | st.dictionaries(TEXTS, below, max_size=3), max_leaves=12
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", "tool", "x y"]), "content": VALUES}),
    max_size=4,
)
LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from([*models(), "none"]),
    "messages": MESSAGES,
    "prompt": TEXTS | st.lists(st.integers(-1, 400), max_size=30) | st.lists(TEXTS, max_size=3),
    "input": TEXTS | st.lists(TEXTS, max_size=3),
    "q": TEXTS | st.lists(TEXTS, max_size=3),
    "source": st.sampled_from(["en", "es", "auto", "fr"]),
    "target": st.sampled_from(["en", "es", "fr"]),
    "max_tokens": st.integers(0, 40),
    "stream": st.booleans(),
    "tokens": st.lists(st.integers(-1, 400), max_size=30),
}


@st.composite
def bodies(draw: st.DrawFn) -> tuple[Any, Any]:
    """A path, and a body of its fields: some right, some of anything."""
    path = draw(st.sampled_from(POSTS))
    assert path.asks is not None
    names = list(path.asks.model_fields)
    body: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(names), unique=True)) + [n for n in LIKELY if n in names]:
        likely = LIKELY.get(name)
        body[name] = draw(likely if likely is not None and draw(st.integers(0, 9)) else VALUES)
    if not draw(st.integers(0, 9)):
        body[draw(TEXTS)] = draw(VALUES)
    return path, body


@given(asked=bodies())
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_fields_with_anything_in_them(server: Running, asked: tuple[Any, Any]) -> None:
    path, body = asked
    reply = requests.post(f"{server.address}{path.path}", json=body, timeout=SECONDS)
    assert reply.status_code < 500 or reply.status_code in (503, 504), reply.text
    if "event-stream" in reply.headers["content-type"]:
        assert reply.text.endswith("data: [DONE]\n\n")
        assert '"server_error"' not in reply.text
    else:
        told = reply.json()
        assert reply.status_code == 200 or told["error"]


def test_what_its_own_document_allows(server: Running) -> None:
    """schemathesis, by the document that the server gives."""
    assert requests.get(f"{server.address}/openapi.json", timeout=SECONDS).json() == json.loads(json.dumps(document()))
    schema = schemathesis.openapi.from_url(f"{server.address}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == len(PATHS)
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(
            max_examples=max(5, EXAMPLES // len(operations)), suppress_health_check=list(HealthCheck), deadline=None
        )
        def ask(case: Any) -> None:
            reply = case.call(base_url=server.address, timeout=SECONDS)
            assert reply.status_code < 500 or reply.status_code in (503, 504), reply.text

        ask()


@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\nhost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /translate HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"POST /translate HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n"
        b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /translate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\nhost: evil\r\n\r\n",
        b"GET /v1/models/%ff%fe%00 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        b"GET /page/../../etc/passwd HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    ],
)
def test_bytes_that_are_no_request(server: Running, sent: bytes) -> None:
    with socket.create_connection(server.address.removeprefix("http://").split(":"), timeout=SECONDS) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        held = b""
        while part := connection.recv(65_536):
            held += part
    assert b" 500 " not in held.split(b"\r\n")[0]
    assert b"root:" not in held
