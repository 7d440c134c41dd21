"""What the endpoints of a server share: its models, limits and keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from sublayer.serving.keys import Keys
from sublayer.serving.limits import RequestLimits
from sublayer.serving.metrics import Metrics
from sublayer.serving.refusals import Stopping
from sublayer.serving.served import Models

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(eq=False)
class Server:
    """loading: the models are not there yet. stopping: nothing new is taken."""

    models: Models
    metrics: Metrics
    limits: RequestLimits = field(default_factory=RequestLimits)
    keys: Keys = field(default_factory=Keys)
    loading: bool = False
    stopping: bool = False

    def __post_init__(self) -> None:
        # Tokenizers and chat templates: work of milliseconds that must not hold up the event loop.
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="texts")

    async def in_thread(self, call: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        """What `call` gives, computed beside the event loop.

        Raises:
            Stopping: nothing new is taken. And what `call` raises.
        """
        if self.stopping:
            raise Stopping
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: call(*arguments, **named))

    def stop(self) -> None:
        """Finish what runs, and take nothing new."""
        self.stopping = True
        self.models.stop()

    @property
    def ready(self) -> bool:
        return not self.loading and not self.stopping and self.models.alive

    def close(self, seconds: float) -> bool:
        """Stop, and wait for what runs; whether it has finished."""
        self.stop()
        finished = self.models.join(seconds)
        self._threads.shutdown(wait=False)
        return finished
