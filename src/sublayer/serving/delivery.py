"""From a model's thread to the event loop: what has happened is handed to those who wait for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from sublayer.serving.tickets import Event, Ticket

log = logging.getLogger("sublayer.serve")


def deliver(loop: asyncio.AbstractEventLoop, events: list[tuple[Ticket, Event]]) -> None:
    """Hand events to their tickets, in the event loop."""

    def all_of_them() -> None:
        for ticket, event in events:
            ticket.deliver(event)

    hand_on(loop, all_of_them)


def hand_on(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """Call something in the event loop; nothing where it has ended, with whoever waited there."""
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        log.debug("an event loop has ended before its answers")
