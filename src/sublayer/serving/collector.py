"""Texts of many requests through an encoder at once: what waits when the model is free is read together.

An encoder answers in one pass, so there is nothing to join: the next batch is whatever has come meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from sublayer.errors import SublayerError
from sublayer.serving.delivery import Promise
from sublayer.serving.metrics import ModelMetrics
from sublayer.serving.model_thread import ModelThread
from sublayer.serving.refusals import Busy, Failed, Late

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
    promise: Promise[Sequence[Any]]


class Collector(ModelThread):
    """An encoder in a thread of its own.

    Args:
        waiting: texts that may wait.
    """

    def __init__(self, metrics: ModelMetrics, waiting: int = 512) -> None:
        super().__init__()
        self._metrics, self._most = metrics, waiting
        self._waiting: deque[_Asked] = deque()
        self._pace = 0.0
        self._thread.start()

    async def ask(self, texts: Sequence[Any], kind: Hashable, read: Read, seconds: float) -> Sequence[Any]:
        """What `read` says of each text, read together with others of the same kind.

        Raises:
            Busy, Stopping: it was not taken. Late: the time is over. And what `read` raises of these texts.
        """
        asked = _Asked(texts, kind, read, time.monotonic() + seconds, Promise())
        with self._changed:
            self._require_alive()
            held = sum(len(one.texts) for one in self._waiting)
            if held and held + len(texts) > self._most:
                self._metrics.refused()
                raise Busy(held, held * self._pace)
            self._waiting.append(asked)
            self._metrics.queue(held + len(texts))
            self._changed.notify()
        try:
            async with asyncio.timeout(seconds):
                return await asked.promise.kept()
        except TimeoutError:
            raise Late(seconds) from None

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
            if asked.promise.given_up or now > asked.deadline:
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
                several[0].promise.fail(error if isinstance(error, SublayerError) else Failed())
            return
        self._metrics.texts(len(texts))
        self._pace = (time.monotonic() - began) / max(1, len(texts))
        at = 0
        for asked in several:
            asked.promise.give(found[at : at + len(asked.texts)])
            at += len(asked.texts)
