"""Who may ask the page's server, and what every reply says to a browser."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sublayer.untrusted import to_json

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

READING = 10.0
"""Seconds in which a request must have come."""

HEADERS: Mapping[str, str] = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def json_reply(value: Any, status: int = 200) -> Response:
    from starlette.responses import Response

    held = to_json(value, separators=(",", ":")).encode("utf-8")
    return Response(held, status, media_type="application/json")


class AccessControl:
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
            await json_reply({"what": refusal, "remedy": "Open the address that `sublayer inspect` shows."}, 403)(
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
