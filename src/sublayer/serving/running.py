"""A server from its start to its end: connections minded, and, told to stop, what runs is finished."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING, Any

from sublayer.inspection.connections import Connection
from sublayer.serving.server import Server

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

HEADERS = 64 * 1024
"""Bytes of a request's headers at most."""
CONNECTIONS = 1024
"""Connections at once; of more, the one that has been asking for the longest is closed."""
SENDING = 5
"""Seconds for replies on their way, once the models have finished."""


class ServiceConnection(Connection):
    """As the page's, but for as many as a service has."""

    most = CONNECTIONS


def uvicorn_server(app: ASGIApp, server: Server, grace: float) -> uvicorn.Server:
    """A server that, told to stop, finishes what runs in `grace` seconds; told twice, it ends at once."""
    import uvicorn

    class Graceful(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            if server.stopping:
                os._exit(128 + sig)
            # It goes on listening: what comes is refused by the status of a reply, and replies that grow are finished.
            server.stopping = True
            threading.Thread(target=self._finish, name="stopping", daemon=True).start()

        def _finish(self) -> None:
            server.close(grace)
            self.should_exit = True

    return Graceful(
        uvicorn.Config(
            app,
            http=ServiceConnection,
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=SENDING,
            h11_max_incomplete_event_size=HEADERS,
            ws="none",
            lifespan="off",
        )
    )


def serve(app: ASGIApp, server: Server, listening: socket.socket, grace: float) -> None:
    """Serve until the process is told to stop and what ran has finished."""
    uvicorn_server(app, server, grace).run(sockets=[listening])
