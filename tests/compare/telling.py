"""A reporter that remembers what it was told."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Told:
    """Stands where a terminal would."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int | None, float]] = []
        self.said: list[str] = []

    def step(self, step: int, last: int | None, loss: float, speed: str, left: float | None) -> None:
        self.steps.append((step, last, loss))

    def say(self, text: str) -> None:
        self.said.append(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None
