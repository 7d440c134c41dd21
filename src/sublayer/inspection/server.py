"""The page of `sublayer inspect`: a small server on this machine, with one model behind it.

    GET  /            the page           GET  /page/NAME   its files
    GET  /api/model   what the model is  POST /api/view    a `Question`, answered by a `View`

Whoever can reach the server can use the model, and nobody else's web page may: requests must come by an address or by
this machine's name (a page cannot make a browser send that, however it has its own name resolved), from a page of ours
if from any. Nothing is read from the disk for a request.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from sublayer.errors import SublayerError
from sublayer.inspection import assets
from sublayer.inspection.access import READING, AccessControl, json_reply
from sublayer.inspection.inspector import GivenUp, Inspector
from sublayer.inspection.view import Question
from sublayer.untrusted import UntrustedError, parse_json

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

MOST_BYTES = 256 * 1024
"""Of a request's body: the longest text, all of it outside ASCII, and a list of heads."""

log = logging.getLogger("sublayer.inspect")


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
            return json_reply({"what": "there is no such file", "remedy": ""}, 404)
        return Response(found[0], media_type=found[1])

    async def model(request: Request) -> Response:
        return json_reply({"about": inspector.about.plain(), "text": text})

    async def view(request: Request) -> Response:
        question = Question.parse(await _body(request), "the question")
        given_up = threading.Event()
        watch = asyncio.create_task(_watch(request, given_up))
        try:
            return json_reply(await inspector.ask(question, given_up))
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
    return AccessControl(Starlette(routes=routes), names)


def _answering_errors(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Errors as JSON that the page shows: what, and a remedy."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except SublayerError as error:
            return json_reply({"what": error.what, "remedy": error.remedy}, getattr(error, "status", 400))
        except GivenUp:
            return json_reply({"what": "nobody waits any more", "remedy": ""}, 499)
        except Exception:
            log.exception("a question could not be answered")
            return json_reply({"what": "sublayer has met an error of its own", "remedy": "The terminal shows it."}, 500)

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
