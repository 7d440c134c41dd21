"""What a person sees while it trains: a live bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from threading import Event, Thread
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from sublayer.untrusted import printable

QUIET = 10.0
"""Seconds after which a person wonders whether it still runs."""


class Reporter:
    """Told of every step; says nothing itself. What others say goes to standard error. loss: a running mean."""

    def busy(self, what: str) -> None:
        """Something begins that may take long; the next call of `busy` or `step` says that it is done."""

    def step(self, step: int, last: int | None, loss: float, speed: str, left: float | None) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Silent(Reporter):
    """Of a process that says nothing: another one does."""


class _Long(ProgressColumn):
    """What is being done, where it takes long."""

    def __init__(self, busy: Busy) -> None:
        super().__init__()
        self._busy = busy

    def render(self, task: Task) -> Text:
        return Text(self._busy.message() or "")


class Busy:
    """What is being done, and since when."""

    def __init__(self, quiet: float = QUIET) -> None:
        self.quiet = quiet
        self.begin("")

    def begin(self, what: str) -> None:
        """Something else begins; nothing, where `what` is empty."""
        self._what, self._since = what, time.monotonic()

    def message(self) -> str | None:
        """How long it is taking, where that is long."""
        what, seconds = self._what, time.monotonic() - self._since
        return f"{what} is taking {seconds:.0f} s" if what and seconds >= self.quiet else None


class Bar(Reporter):
    """A bar with loss, speed and time left."""

    def __init__(self, console: Console) -> None:
        self._busy = Busy()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("step {task.fields[step]}"),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TextColumn("{task.fields[speed]}"),
            TextColumn("{task.fields[left]} left"),
            _Long(self._busy),
            console=console,
            expand=True,
        )
        self._task = self._bar.add_task("training", total=None, step="0", loss=float("nan"), speed="", left="?")

    def busy(self, what: str) -> None:
        self._busy.begin(what)

    def step(self, step: int, last: int | None, loss: float, speed: str, left: float | None) -> None:
        self._busy.begin("")
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
        self._bar.console.print(printable(text), markup=False, highlight=False)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


class Lines(Reporter):
    """A line at the first step, then one about every ten seconds, also while a step goes on."""

    def __init__(self, console: Console, every: float = QUIET) -> None:
        self._console, self._every, self._said = console, every, float("-inf")
        self._busy = Busy(every)
        self._ended = Event()
        self._heart: Thread | None = None

    def busy(self, what: str) -> None:
        self._busy.begin(what)

    def step(self, step: int, last: int | None, loss: float, speed: str, left: float | None) -> None:
        self._busy.begin("")
        now = time.monotonic()
        if now - self._said >= self._every or step == last:
            shown = f"{step}/{last}" if last else f"{step}"
            self.say(f"step {shown}  loss {loss:.3f}  {speed}  {_duration(left)} left")

    def say(self, text: str) -> None:
        self._said = time.monotonic()
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._ended.clear()
        self._heart = Thread(target=self._beat, daemon=True)
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._heart is not None:
            self._heart.join()

    def _beat(self) -> None:
        """Until the end: where no line has been said for long, say what takes so long."""
        while not self._ended.wait(self._every / 10):
            long = self._busy.message()
            if long is not None and time.monotonic() - self._said >= self._every:
                self.say(long)


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
