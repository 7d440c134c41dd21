"""The thread that owns a model: started, told to stop, waited for. What it does is said by who derives from it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

from sublayer.serving.refusals import Stopping


class ModelThread(ABC):
    """A thread that takes work under `_changed` and ends once it was told to stop and has nothing left."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._stopping = False
        # A daemon: a model that does not come back must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    @abstractmethod
    def _run(self) -> None: ...

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._stopping

    def _require_alive(self) -> None:
        """Raise `Stopping` where nothing new is taken. Under `_changed`."""
        if not self.alive:
            raise Stopping

    def stop(self) -> None:
        """Finish what has been taken, and take nothing new."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def join(self, seconds: float) -> bool:
        """Wait for the end; whether it came."""
        self._thread.join(seconds)
        return not self._thread.is_alive()
