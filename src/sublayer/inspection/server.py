"""The page of `sublayer inspect`: a small server on this machine, with one model behind it.

    GET  /            the page           GET  /page/NAME   its files
    GET  /api/model   what the model is  POST /api/view    a `Question`, answered by a `View`

Whoever can reach the server can use the model, and nobody else's web page may: requests must come by an address or by
this machine's name (a page cannot make a browser send that, however it has its own name resolved), from a page of ours
if from any. Nothing is read from the disk for a request.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from sublayer.errors import InputError, SublayerError
from sublayer.inspection import assets
from sublayer.inspection.look import look
from sublayer.inspection.subject import Subject
from sublayer.inspection.view import About, Question
from sublayer.untrusted import UntrustedError, parse_json, to_json

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 256 * 1024
"""Of a request's body: the longest text, all of it outside ASCII, and a list of heads."""
READING = 10.0
"""Seconds in which a request's body must have come."""
WAITING = 8
"""Questions that may wait for the model at once."""
CONNECTIONS = 128
"""Connections at once; of more, the one that has been asking for the longest is closed."""
SENDING = 30.0
"""Seconds in which a reader must take something of a reply."""

HEADERS: Mapping[str, str] = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

log = logging.getLogger("sublayer.inspect")


class Busy(SublayerError):
    """The model is taken, or took too long."""


class GivenUp(Exception):
    """Nobody waits for the answer any more."""


@dataclass(eq=False)
class _Asked:
    """A question that waits for the model, or that the model is at."""

    question: Question
    given_up: threading.Event
    end: float
    answer: Future[dict[str, Any]] = field(default_factory=Future[dict[str, Any]])


@dataclass(eq=False)
class Inspector:
    """A model that answers one question at a time, in bounded time.

    The model has one thread, and what waits for it stands in one list: nothing else queues.

    seconds: for an answer at most, what it waits for others included.
    """

    subject: Subject
    about: About
    seconds: float = 60.0

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[_Asked] = deque()
        self._current: _Asked | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    async def ask(self, question: Question, given_up: threading.Event) -> dict[str, Any]:
        """The view as plain data. The time is kept whatever the model's thread does.

        Raises:
            InputError: as `look`. Busy: too many wait, or the time is over. GivenUp: it was set.
        """
        asked = self._enter(question, given_up)
        try:
            async with asyncio.timeout(self.seconds):
                return await asyncio.wrap_future(asked.answer)
        except TimeoutError:
            raise self._late() from None
        finally:
            self._leave(asked)

    def answer(self, question: Question, given_up: threading.Event) -> dict[str, Any]:
        """As `ask`, for a thread that may wait."""
        asked = self._enter(question, given_up)
        try:
            return asked.answer.result(timeout=self.seconds)
        except TimeoutError:
            raise self._late() from None
        finally:
            self._leave(asked)

    def close(self, seconds: float = 1.0) -> bool:
        """Give up all questions; whether the model's thread has ended within `seconds`."""
        with self._changed:
            self._closed = True
            for asked in (*self._waiting, *filter(None, [self._current])):
                asked.given_up.set()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()

    def _late(self) -> Busy:
        return Busy(
            f"the answer would take more than {self.seconds:g} s",
            "Shorten the text or ask for fewer tokens; `sublayer inspect --seconds` allows more.",
        )

    def _enter(self, question: Question, given_up: threading.Event) -> _Asked:
        with self._changed:
            if len(self._waiting) >= WAITING:
                raise Busy(f"{WAITING} questions wait for the model already", "Ask again in a moment.")
            asked = _Asked(question, given_up, time.monotonic() + self.seconds)
            self._waiting.append(asked)
            if self._thread is None:
                # A daemon: a model that does not come back must not keep the process alive.
                self._thread = threading.Thread(target=self._work, name="model", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return asked

    def _leave(self, asked: _Asked) -> None:
        asked.given_up.set()
        with self._changed:
            if asked in self._waiting:
                self._waiting.remove(asked)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._current = None
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                self._current = asked = self._waiting.popleft()
            if not asked.answer.set_running_or_notify_cancel():
                continue
            try:
                asked.answer.set_result(self._look(asked))
            except BaseException as error:  # whoever asked is told, and the next is answered
                asked.answer.set_exception(error)

    def _look(self, asked: _Asked) -> dict[str, Any]:
        def check() -> None:
            if asked.given_up.is_set():
                raise GivenUp
            if time.monotonic() > asked.end:
                raise self._late()

        check()
        return look(self.subject, asked.question, about=self.about, check=check).plain()


def application(inspector: Inspector, *, text: str = "", names: frozenset[str] = frozenset()) -> ASGIApp:
    """The server's application.

    Args:
        text: what the page begins with. names: host names, besides "localhost", by which it may be asked.
    """
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route

    files = assets.files()

    async def page(request: Request) -> Response:
        held, kind = files["index.html"]
        return Response(held, media_type=kind)

    async def file(request: Request) -> Response:
        found = files.get(request.path_params["name"])
        if found is None:
            return _json({"what": "there is no such file", "remedy": ""}, 404)
        return Response(found[0], media_type=found[1])

    async def model(request: Request) -> Response:
        return _json({"about": inspector.about.plain(), "text": text})

    async def view(request: Request) -> Response:
        question = Question.parse(await _body(request), "the question")
        given_up = threading.Event()
        watch = asyncio.create_task(_watch(request, given_up))
        try:
            return _json(await inspector.ask(question, given_up))
        finally:
            # However this ends, the model need not go on.
            given_up.set()
            watch.cancel()

    routes = [
        Route("/", page),
        Route("/page/{name}", file),
        Route("/api/model", model),
        Route("/api/view", _answering_errors(view), methods=["POST"]),
    ]
    return _Guard(Starlette(routes=routes), names)


def _json(value: Any, status: int = 200) -> Response:
    from starlette.responses import Response

    held = to_json(value, separators=(",", ":")).encode("utf-8")
    return Response(held, status, media_type="application/json")


def _answering_errors(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Errors as JSON that the page shows: what, and a remedy."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except _Refused as refused:
            return _json({"what": refused.what, "remedy": refused.remedy}, refused.status)
        except Busy as busy:
            return _json({"what": busy.what, "remedy": busy.remedy}, 503)
        except SublayerError as error:
            return _json({"what": error.what, "remedy": error.remedy}, 400)
        except GivenUp:
            return _json({"what": "nobody waits any more", "remedy": ""}, 499)
        except Exception:
            log.exception("a question could not be answered")
            return _json({"what": "sublayer has met an error of its own", "remedy": "The terminal shows it."}, 500)

    return answer


class _Refused(SublayerError):
    def __init__(self, status: int, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy)
        self.status = status


async def _body(request: Request) -> dict[str, Any]:
    """A request's body, if it is a JSON table of bounded size that came in bounded time."""
    # A form of another page cannot send this type without asking first, which we do not answer.
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise _Refused(415, "a question is JSON", "Send it as application/json.")
    held = bytearray()
    try:
        async with asyncio.timeout(READING):
            async for chunk in request.stream():
                held += chunk
                if len(held) > MOST_BYTES:
                    raise _Refused(413, f"a question has {MOST_BYTES:,} bytes at most", "Shorten the text.")
    except TimeoutError:
        raise _Refused(408, f"the question did not come within {READING:g} s") from None
    try:
        value: Any = parse_json(bytes(held))
    except UntrustedError as error:
        raise _Refused(400, f"the question {error}") from None
    if not isinstance(value, dict):
        raise _Refused(400, "the question is no table")
    return cast("dict[str, Any]", value)


async def _watch(request: Request, given_up: threading.Event) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(0.1)
    given_up.set()


class _Guard:
    """Lets in who may, and puts `HEADERS` on every reply."""

    def __init__(self, inner: ASGIApp, names: frozenset[str]) -> None:
        self.inner, self.names = inner, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # Starting and stopping; a web socket is closed by the application, which knows none.
            await self.inner(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = refused(headers, self.names)
        if refusal:
            await _json({"what": refusal, "remedy": "Open the address that `sublayer inspect` shows."}, 403)(
                scope, receive, sending
            )
            return
        await self.inner(scope, receive, sending)


# A name or an address, and a port. Whatever else stands there no browser sends.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")


def refused(headers: Mapping[str, str], names: frozenset[str]) -> str:
    """Why a request with these headers (names in small letters) is not let in; empty where it is."""
    host = headers.get("host", "")
    found = _HOST.fullmatch(host)
    name = found[1].strip("[]").lower() if found else ""
    if not (name == "localhost" or name in names or _is_address(name)):
        return f"this server is not known as {host[:80]!a}"
    if headers.get("origin") not in (None, f"http://{host}", f"https://{host}"):
        return "the request comes from another page"
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        # A link may lead here; but then a browser is asked for the page itself, not for data.
        navigates = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        return "" if navigates else "the request comes from another page"
    return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def bound(host: str, port: int, tries: int = 1) -> socket.socket:
    """A socket that listens at `host`, at `port` or at one of the `tries` - 1 ports after it; 0 takes any.

    Raises:
        InputError: it cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    problem: OSError | None = None
    for number in range(port, port + max(1, tries)):
        if not 0 <= number <= 65_535:
            raise InputError(f"there is no port {number}", "A port is a number from 0 to 65535.")
        try:
            return socket.create_server((host, number), family=family)
        except OSError as error:
            problem = error
    raise InputError(
        f"cannot listen at {host}, port {port} ({problem and (problem.strerror or problem)})",
        "Choose another with --port or --host.",
    )


def addresses(listening: socket.socket) -> list[str]:
    """The page's addresses, as one opens them: on this machine, and from others where they can reach it."""
    host, port = listening.getsockname()[:2]
    hosts = [host]
    if ipaddress.ip_address(host).is_unspecified:
        own = _own_address(listening.family)
        hosts = ["localhost", *([own] if own else [])]
    return [f"http://[{each}]:{port}/" if ":" in each else f"http://{each}:{port}/" for each in hosts]


def is_exposed(listening: socket.socket) -> bool:
    """Whether other machines may reach it."""
    return not ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback


def _own_address(family: int) -> str | None:
    """The address that this machine has for others; nothing is sent to find it."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            # An address of the documentation's, which leads nowhere.
            probe.connect(("2001:db8::1" if family == socket.AF_INET6 else "192.0.2.1", 9))
        except OSError:
            return None
        return probe.getsockname()[0]


def serve(app: ASGIApp, listening: socket.socket) -> None:
    """Serve until the process is told to stop; told twice, the process ends at once.

    Whoever connects must have asked within `READING` seconds and take the reply as it comes. Of more than
    `CONNECTIONS` connections the one that has been asking for the longest gives way, so that those who only hold
    connections open shut nobody out.
    """
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Protocol(H11Protocol):
        since: float = 0.0
        asking: asyncio.TimerHandle | None = None
        sending: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._mind()
            if len(self.connections) > CONNECTIONS:
                mine: list[Any] = list(self.connections)  # all of this class; typed as of any that uvicorn has
                min((one for one in mine if one.asks()), key=lambda one: one.since).transport.abort()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._mind()

        def asks(self) -> bool:
            """Whether no request has come whole that is not answered."""
            cycle: Any = self.cycle  # None before the first request, whatever its annotation says
            return cycle is None or cycle.response_complete or cycle.more_body

        def _mind(self) -> None:
            if self.asks() and self.asking is None:
                self.since = self.loop.time()
                # The application says so to a body that is late; this is for headers, and for whoever does not listen.
                self.asking = self.loop.call_later(READING + 1, self.transport.abort)
            elif not self.asks() and self.asking is not None:
                self.asking.cancel()
                self.asking = None

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self.since = self.loop.time()

        def pause_writing(self) -> None:
            super().pause_writing()
            self.sending = self.loop.call_later(SENDING, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self.sending is not None:
                self.sending.cancel()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            for timer in filter(None, (self.asking, self.sending)):
                timer.cancel()

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            if self.should_exit:
                os._exit(128 + sig)
            super().handle_exit(sig, frame)

    settings = uvicorn.Config(
        app,
        http=Protocol,
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=64 * 1024,
        ws="none",
    )
    Server(settings).run(sockets=[listening])
