"""Where the page is served, and for how long: an address that other machines may reach or not."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import TYPE_CHECKING, Any

from sublayer.errors import InputError

if TYPE_CHECKING:
    from starlette.types import ASGIApp


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
    """Serve until the process is told to stop; told twice, the process ends at once."""
    import uvicorn

    from sublayer.inspection.connections import Connection

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            if self.should_exit:
                os._exit(128 + sig)
            super().handle_exit(sig, frame)

    settings = uvicorn.Config(
        app,
        http=Connection,
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=64 * 1024,
        ws="none",
    )
    Server(settings).run(sockets=[listening])
