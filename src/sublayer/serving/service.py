"""What a service is asked by whoever runs it: `/health`, `/ready`, `/metrics`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sublayer.serving.replies import json_reply
from sublayer.serving.server import Server

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


async def health(server: Server, request: Request) -> Response:
    """That the process answers; LibreTranslate's clients read the same word."""
    return json_reply({"status": "ok"})


async def ready(server: Server, request: Request) -> Response:
    """Whether requests are taken: not while it loads its models or stops, nor where a model's thread has ended."""
    if server.ready:
        return json_reply({"status": "ready"})
    return json_reply({"status": "loading" if server.loading else "stopping" if server.stopping else "not ready"}, 503)


async def metrics(server: Server, request: Request) -> Response:
    from starlette.responses import Response

    held, kind = server.metrics.page()
    return Response(held, media_type=kind)
