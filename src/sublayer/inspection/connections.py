"""Connections that nobody can hoard: whoever connects must ask in time, and take the reply as it comes.

Of more than `CONNECTIONS` connections the one that has been asking for the longest gives way, so that those who only
hold connections open shut nobody out.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from sublayer.inspection.access import READING

CONNECTIONS = 128
"""Connections at once; of more, the one that has been asking for the longest is closed."""
SENDING = 30.0
"""Seconds in which a reader must take something of a reply."""


class Connection(H11Protocol):
    """A connection that ends where nothing is asked in time, or the reply is not taken.

    most: connections at once.
    """

    most: int = CONNECTIONS
    since: float = 0.0
    asking: asyncio.TimerHandle | None = None
    sending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._mind()
        if len(self.connections) > self.most:
            mine: list[Any] = list(self.connections)  # all of this class; typed as of any that uvicorn has
            # This one at least has asked nothing yet.
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
