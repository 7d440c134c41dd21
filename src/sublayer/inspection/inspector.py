"""A model that answers questions, one at a time and in bounded time, however many ask at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sublayer.errors import SublayerError
from sublayer.inspection.loaded_model import LoadedModel
from sublayer.inspection.look import look
from sublayer.inspection.view import About, Question

WAITING = 8
"""Questions that may wait for the model at once."""


class Busy(SublayerError):
    """The model is taken, or took too long."""

    status = 503


class GivenUp(Exception):
    """Nobody waits for the answer any more."""


@dataclass(eq=False)
class _Asked:
    """A question that waits for the model, or that the model is at."""

    question: Question
    given_up: threading.Event
    end: float
    answer: Future[dict[str, Any]] = field(default_factory=Future[dict[str, Any]])


@dataclass(eq=False)
class Inspector:
    """A model that answers one question at a time, in bounded time.

    The model has one thread, and what waits for it stands in one list: nothing else queues.

    seconds: for an answer at most, what it waits for others included.
    """

    loaded: LoadedModel
    about: About
    seconds: float = 60.0

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[_Asked] = deque()
        self._current: _Asked | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    async def ask(self, question: Question, given_up: threading.Event) -> dict[str, Any]:
        """The view as plain data. The time is kept whatever the model's thread does.

        Raises:
            InputError: as `look`. Busy: too many wait, or the time is over. GivenUp: it was set.
        """
        with self._asked(question, given_up) as answer:
            async with asyncio.timeout(self.seconds):
                return await asyncio.wrap_future(answer)

    def answer(self, question: Question, given_up: threading.Event) -> dict[str, Any]:
        """As `ask`, for a thread that may wait."""
        with self._asked(question, given_up) as answer:
            return answer.result(timeout=self.seconds)

    def close(self, seconds: float = 1.0) -> bool:
        """Give up all questions; whether the model's thread has ended within `seconds`."""
        with self._changed:
            self._closed = True
            for asked in (*self._waiting, *filter(None, [self._current])):
                asked.given_up.set()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()

    def _late(self) -> Busy:
        return Busy(
            f"the answer would take more than {self.seconds:g} s",
            "Shorten the text or ask for fewer tokens; `sublayer inspect --seconds` allows more.",
        )

    @contextmanager
    def _asked(self, question: Question, given_up: threading.Event) -> Generator[Future[dict[str, Any]]]:
        """The answer to come; after the block nobody waits for it."""
        with self._changed:
            if len(self._waiting) >= WAITING:
                raise Busy(f"{WAITING} questions wait for the model already", "Ask again in a moment.")
            asked = _Asked(question, given_up, time.monotonic() + self.seconds)
            self._waiting.append(asked)
            if self._thread is None:
                # A daemon: a model that does not come back must not keep the process alive.
                self._thread = threading.Thread(target=self._work, name="model", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        try:
            yield asked.answer
        except TimeoutError:
            raise self._late() from None
        finally:
            asked.given_up.set()
            with self._changed:
                if asked in self._waiting:
                    self._waiting.remove(asked)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._current = None
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                self._current = asked = self._waiting.popleft()
            if not asked.answer.set_running_or_notify_cancel():
                continue
            try:
                asked.answer.set_result(self._look(asked))
            except BaseException as error:  # whoever asked is told, and the next is answered
                asked.answer.set_exception(error)

    def _look(self, asked: _Asked) -> dict[str, Any]:
        def check() -> None:
            if asked.given_up.is_set():
                raise GivenUp
            if time.monotonic() > asked.end:
                raise self._late()

        check()
        return look(self.loaded, asked.question, about=self.about, check=check).plain()
