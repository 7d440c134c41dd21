"""A reporter that remembers what it was told."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass
class Told:
    """Stands where a terminal would. losses: of every step. left: seconds that were said to be left."""

    said: list[str] = field(default_factory=list[str])
    losses: list[float] = field(default_factory=list[float])
    left: list[float | None] = field(default_factory=list[float | None])

    def busy(self, what: str) -> None:
        return None

    def step(self, step: int, last: int | None, loss: float, speed: str, left: float | None) -> None:
        self.losses.append(loss)
        self.left.append(left)

    def say(self, text: str) -> None:
        self.said.append(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None
