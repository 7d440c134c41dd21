"""The server's application: who is let in, what fails in which form, what is counted and logged.

Nothing of what users write is logged: a line has the path, the status, the time and the size.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from sublayer.errors import SublayerError
from sublayer.inspection.access import HEADERS
from sublayer.inspection.access import refused as refused_by
from sublayer.serving import page
from sublayer.serving.bodies import table_of
from sublayer.serving.keys import of_headers
from sublayer.serving.openai.forms import error_of
from sublayer.serving.openapi import document
from sublayer.serving.refusals import Failed, Loading, Refusal
from sublayer.serving.replies import json_reply
from sublayer.serving.routes import PATHS, Path
from sublayer.serving.server import Server

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("sublayer.serve")
access = logging.getLogger("sublayer.serve.access")
ERRORS = {path.path: path.error for path in PATHS}
"""In whose form something goes wrong, by path."""


def application(server: Server, *, names: frozenset[str] = frozenset()) -> ASGIApp:
    """The server's application.

    Args:
        names: host names, besides "localhost" and addresses, by which it may be asked.
    """
    from starlette.applications import Starlette
    from starlette.routing import Route

    async def openapi(_: Request) -> Response:
        return json_reply(_document())

    async def unknown(request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 404)
        what = "the method is not allowed here" if status == 405 else "there is nothing here"
        headers: Any = getattr(error, "headers", None)
        refusal = Refusal(what, "GET /openapi.json tells what there is.", status=status)
        return json_reply(ERRORS.get(request.url.path, error_of)(refusal), status, headers)

    # One path may be asked by several methods.
    routes = [Route(path.path, _endpoint(server, path), methods=[path.method]) for path in PATHS]
    routes += [Route("/openapi.json", openapi), Route("/", page.index), Route("/page/{name}", page.file)]
    app = Starlette(routes=routes, exception_handlers={404: unknown, 405: unknown})
    return Gate(app, server, names)


@cache
def _document() -> dict[str, Any]:
    return document()


def _endpoint(server: Server, path: Path) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            if not path.open:
                await _require_key(server, request, path)
            if server.loading and not path.always:
                raise Loading
            return await path.answer(server, request)
        except SublayerError as error:
            return _refused(path, error)
        except Exception:
            log.exception("a request could not be answered")
            return _refused(path, Failed())

    return endpoint


def _refused(path: Path, error: SublayerError) -> Response:
    if not isinstance(error, Refusal):
        return json_reply(path.error(error), 400)
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return json_reply(path.error(error), error.status, headers)


async def _require_key(server: Server, request: Request, path: Path) -> None:
    if not server.keys.needed:
        return
    key = of_headers(request.headers)
    if key is None and path.forms:
        # LibreTranslate's clients give it beside the text.
        key = (await table_of(request, server.limits, forms=True)).get("api_key")
    if not server.keys.admit(key if isinstance(key, str) else None):
        status = 403 if path.forms else 401
        raise Refusal(
            "the API key is missing or wrong", "Send it as a bearer token.", status=status, code="invalid_api_key"
        )


class Gate:
    """Lets in who may, puts headers on every reply, counts and logs it."""

    def __init__(self, inner: ASGIApp, server: Server, names: frozenset[str]) -> None:
        self.inner, self.server, self.names = inner, server, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # Starting and stopping; a web socket is closed by the application, which knows none.
            await self.inner(scope, receive, send)
            return
        began, status, size = time.monotonic(), 499, 0

        async def sending(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *own]}
            elif message["type"] == "http.response.body":
                size += len(message.get("body", b""))
            await send(message)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        try:
            if refusal is not None:
                form = ERRORS.get(scope["path"], error_of)
                await json_reply(form(refusal), refusal.status)(scope, receive, sending)
            else:
                await self.inner(scope, receive, sending)
        finally:
            self._note(scope, status, size, time.monotonic() - began)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> Refusal | None:
        """Why a request is not let in, if it is not."""
        most = self.server.limits.headers
        if sum(len(name) + len(value) for name, value in scope["headers"]) > most:
            return Refusal(f"the headers have over {most:,} bytes", "Send fewer.", status=431)
        why = refused_by(headers, self.names)
        return Refusal(why, "`sublayer serve --name NAME` lets it in by that name.", status=403) if why else None

    def _note(self, scope: Scope, status: int, size: int, seconds: float) -> None:
        # The route as it is written, so that nobody's words become a name of a figure.
        route = getattr(scope.get("route"), "path", None) or "other"
        self.server.metrics.answered(route, status, seconds)
        if access.isEnabledFor(logging.INFO):
            told = {
                "path": route,
                "method": scope["method"],
                "status": status,
                "ms": round(1000 * seconds),
                "bytes": size,
            }
            access.info("%(method)s %(path)s %(status)s", told)
