"""A server from its start to its end: connections minded, and, told to stop, what runs is finished."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable
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
            log_config=None,
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


def serve(serving: uvicorn.Server, listening: socket.socket, load: Callable[[], None]) -> None:
    """Serve until the process is told to stop and what ran has finished.

    Args:
        load: gets the models, while it is answered already that they are not there yet.

    Raises:
        What `load` raises: then it has not served.
    """
    failed: list[BaseException] = []

    def loading() -> None:
        try:
            load()
        except BaseException as error:  # it is raised where somebody hears of it
            failed.append(error)
            serving.should_exit = True

    thread = threading.Thread(target=loading, name="loading", daemon=True)
    thread.start()
    serving.run(sockets=[listening])
    if failed:
        raise failed[0]
    if thread.is_alive():
        # Told to stop before the models were there: nobody waits for anything.
        sys.stdout.flush()
        os._exit(0)
