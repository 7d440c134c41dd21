"""Texts of many requests through an encoder at once: what waits when the model is free is read together.

An encoder answers in one pass, so there is nothing to join: the next batch is whatever has come meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from sublayer.errors import SublayerError
from sublayer.serving.delivery import hand_on
from sublayer.serving.metrics import ModelMetrics
from sublayer.serving.refusals import Busy, Failed, Late, Stopping

log = logging.getLogger("sublayer.serve")
TOGETHER = 64
"""Texts in one batch: small enough that nobody waits long for the one that is being read."""

Read = Callable[[Sequence[Any]], Sequence[Any]]


@dataclass(eq=False)
class _Asked:
    """kind: what may be read together has the same one."""

    texts: Sequence[Any]
    kind: Hashable
    read: Read
    deadline: float
    answer: asyncio.Future[Sequence[Any]]
    loop: asyncio.AbstractEventLoop
    given_up: bool = False


class Collector:
    """An encoder in a thread of its own.

    Args:
        waiting: texts that may wait.
    """

    def __init__(self, metrics: ModelMetrics, waiting: int = 512) -> None:
        self._metrics, self._most = metrics, waiting
        self._changed = threading.Condition()
        self._waiting: deque[_Asked] = deque()
        self._stopping = False
        self._pace = 0.0
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    async def ask(self, texts: Sequence[Any], kind: Hashable, read: Read, seconds: float) -> Sequence[Any]:
        """What `read` says of each text, read together with others of the same kind.

        Raises:
            Busy, Stopping: it was not taken. Late: the time is over. And what `read` raises of these texts.
        """
        loop = asyncio.get_running_loop()
        asked = _Asked(texts, kind, read, time.monotonic() + seconds, loop.create_future(), loop)
        with self._changed:
            if self._stopping or not self._thread.is_alive():
                raise Stopping
            held = sum(len(one.texts) for one in self._waiting)
            if held and held + len(texts) > self._most:
                self._metrics.refused()
                raise Busy(held, held * self._pace)
            self._waiting.append(asked)
            self._metrics.queue(held + len(texts))
            self._changed.notify()
        try:
            async with asyncio.timeout(seconds):
                return await asked.answer
        except TimeoutError:
            raise Late(seconds) from None
        finally:
            asked.given_up = True

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._stopping

    def stop(self) -> None:
        """Finish what has been taken, and take nothing new."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def join(self, seconds: float) -> bool:
        """Wait for the end; whether it came."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                if not self._waiting:
                    return
                several = self._taken()
                self._metrics.queue(sum(len(one.texts) for one in self._waiting))
            if several:
                self._answer(several)

    def _taken(self) -> list[_Asked]:
        """The next ones that are read together."""
        several: list[_Asked] = []
        count = 0
        now = time.monotonic()
        while self._waiting:
            asked = self._waiting[0]
            if asked.given_up or now > asked.deadline:
                self._waiting.popleft()
                continue
            if several and (asked.kind != several[0].kind or count + len(asked.texts) > TOGETHER):
                break
            several.append(self._waiting.popleft())
            count += len(asked.texts)
        return several

    def _answer(self, several: list[_Asked]) -> None:
        began = time.monotonic()
        texts = [text for asked in several for text in asked.texts]
        try:
            found = several[0].read(texts)
        except Exception as error:
            if len(several) > 1:
                # One of them is at fault, and the others need not hear of it.
                for asked in several:
                    self._answer([asked])
            else:
                if not isinstance(error, SublayerError):
                    log.exception("texts could not be read")
                self._tell(several[0], error if isinstance(error, SublayerError) else Failed())
            return
        self._metrics.texts(len(texts))
        self._pace = (time.monotonic() - began) / max(1, len(texts))
        at = 0
        for asked in several:
            self._tell(asked, found[at : at + len(asked.texts)])
            at += len(asked.texts)

    def _tell(self, asked: _Asked, answer: Sequence[Any] | Exception) -> None:
        def tell() -> None:
            if asked.answer.done():
                return
            if isinstance(answer, Exception):
                asked.answer.set_exception(answer)
            else:
                asked.answer.set_result(answer)

        hand_on(asked.loop, tell)
