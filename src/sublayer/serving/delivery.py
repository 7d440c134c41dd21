"""From a model's thread to the event loop: what has happened is handed to those who wait for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from sublayer.serving.tickets import Event, Ticket

log = logging.getLogger("sublayer.serve")
R = TypeVar("R")


def deliver(loop: asyncio.AbstractEventLoop, events: list[tuple[Ticket, Event]]) -> None:
    """Hand events to their tickets, in the event loop."""

    def all_of_them() -> None:
        for ticket, event in events:
            ticket.deliver(event)

    _hand_on(loop, all_of_them)


class Promise(Generic[R]):
    """An answer that somebody waits for in the event loop in which it is made, and that a model's thread gives."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[R] = self._loop.create_future()

    async def kept(self) -> R:
        """The answer, once it is there."""
        return await self._answer

    @property
    def given_up(self) -> bool:
        """Whether nobody waits any more."""
        return self._answer.cancelled()

    def give(self, answer: R) -> None:
        _hand_on(self._loop, lambda: self._answer.done() or self._answer.set_result(answer))

    def fail(self, error: Exception) -> None:
        _hand_on(self._loop, lambda: self._answer.done() or self._answer.set_exception(error))


@dataclass(eq=False)
class Call(Generic[R]):
    """Something to compute in a model's thread."""

    function: Callable[[], R]
    promise: Promise[R]

    def run(self) -> None:
        if self.promise.given_up:
            return
        try:
            found = self.function()
        except Exception as error:
            self.promise.fail(error)
        else:
            self.promise.give(found)


def _hand_on(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    """Call something in the event loop; nothing where it has ended, with whoever waited there."""
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        log.debug("an event loop has ended before its answers")
