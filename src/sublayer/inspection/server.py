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
import json
import logging
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from sublayer.errors import InputError, SublayerError
from sublayer.inspection import assets
from sublayer.inspection.look import look
from sublayer.inspection.subject import Subject
from sublayer.inspection.view import About, Question

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
class Inspector:
    """A model that answers one question at a time, in bounded time.

    seconds: for an answer at most, what it waits for others included.
    """

    subject: Subject
    about: About
    seconds: float = 60.0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting = 0

    def answer(self, question: Question, given_up: threading.Event) -> dict[str, Any]:
        """The view as plain data.

        Raises:
            InputError: as `look`. Busy: others were first for too long, or the time is over. GivenUp: it was set.
        """
        end = time.monotonic() + self.seconds

        def check() -> None:
            if given_up.is_set():
                raise GivenUp
            if time.monotonic() > end:
                raise Busy(
                    f"the answer would take more than {self.seconds:g} s",
                    "Shorten the text or ask for fewer tokens; `sublayer inspect --seconds` allows more.",
                )

        if self._waiting >= WAITING:
            raise Busy(f"{WAITING} questions wait for the model already", "Ask again in a moment.")
        self._waiting += 1
        try:
            while not self._lock.acquire(timeout=0.05):
                check()
        finally:
            self._waiting -= 1
        try:
            check()
            return look(self.subject, question, about=self.about, check=check).plain()
        finally:
            self._lock.release()


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
            return _json(await asyncio.to_thread(inspector.answer, question, given_up))
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

    held = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
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
        value: Any = json.loads(held)
    except (ValueError, RecursionError):
        raise _Refused(400, "the question is not JSON") from None
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


def refused(headers: Mapping[str, str], names: frozenset[str]) -> str:
    """Why a request with these headers (names in small letters) is not let in; empty where it is."""
    host = headers.get("host", "")
    name = urlsplit(f"//{host}").hostname or ""
    if not (name == "localhost" or name in names or _is_address(name)):
        return f"this server is not known as '{name[:80]}'"
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != host:
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


def address(listening: socket.socket) -> str:
    """The page's address, as one opens it."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def serve(app: ASGIApp, listening: socket.socket) -> None:
    """Serve until the process is told to stop."""
    import uvicorn

    settings = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=64,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=64 * 1024,
        ws="none",
    )
    uvicorn.Server(settings).run(sockets=[listening])
