"""What a person sees while it trains: a live bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


class Reporter(Protocol):
    """Told of every step; everything goes to standard error."""

    def step(self, step: int, last: int | None, loss: float, speed: str, left: float | None) -> None: ...

    def say(self, text: str) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Bar:
    """A bar with loss, speed and time left."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("step {task.fields[step]}"),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TextColumn("{task.fields[speed]}"),
            TextColumn("{task.fields[left]} left"),
            console=console,
            expand=True,
        )
        self._task = self._bar.add_task("training", total=None, step="0", loss=float("nan"), speed="", left="?")

    def step(self, step: int, last: int | None, loss: float, speed: str, left: float | None) -> None:
        shown = f"{step}/{last}" if last else f"{step}"
        self._bar.update(
            self._task,
            completed=step,
            total=last,
            step=shown,
            loss=loss,
            speed=speed,
            left=_duration(left),
        )

    def say(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


class Lines:
    """A line at the first step, then one about every ten seconds."""

    def __init__(self, console: Console, every: float = 10.0) -> None:
        self._console, self._every, self._said = console, every, float("-inf")

    def step(self, step: int, last: int | None, loss: float, speed: str, left: float | None) -> None:
        now = time.monotonic()
        if now - self._said >= self._every or step == last:
            self._said = now
            shown = f"{step}/{last}" if last else f"{step}"
            self.say(f"step {shown}  loss {loss:.3f}  {speed}  {_duration(left)} left")

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


def reporter() -> Reporter:
    """A bar where standard error is a terminal, lines where it is not."""
    console = Console(stderr=True)
    return Bar(console) if console.is_terminal else Lines(console)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
