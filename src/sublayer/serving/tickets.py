"""What a client has asked for, from its arrival to its answer: seen from the event loop and from the model's thread.

A `Ticket` is one request; a `Job` is one text of it that the model decodes. The event loop makes them, the model's
thread sends events, and the loop may give up at any time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial

from sublayer.generation.beam import BeamSearch, BeamText
from sublayer.generation.loop import Best, Choosing, Chosen, ChosenText
from sublayer.serving.refusals import Gone, Late


@lru_cache(maxsize=1024)
def shared(search: Choosing | BeamSearch) -> Choosing | BeamSearch:
    """The first of all searches that are equal: texts of one search are handled together."""
    return search


@dataclass(eq=False)
class Job:
    """One text to decode.

    prompt: what stands before the first new token, as constraints see it: a language model's prompt, or the start
    marker. source: what an encoder reads, where there is one. search, limit, end_ids: how it goes on, for how many
    tokens at most, and which tokens end it. streams: what the randomness of each of its texts comes from; as many texts
    are made. stopped: told the text's number and its new token; says whether it ends there. scored: also tell the
    log-probabilities of the prompt's own tokens, with so many of the most probable. left: of its texts, those whose end
    was not told yet.
    """

    prompt: list[int]
    search: Choosing | BeamSearch
    limit: int
    end_ids: frozenset[int]
    source: list[int] | None = None
    streams: tuple[int, ...] = (0,)
    stopped: Callable[[int, int], bool] | None = None
    scored: int | None = None
    ticket: Ticket = field(init=False, repr=False)
    texts: Sequence[BeamText | ChosenText] = field(default=(), repr=False)
    left: int = 0

    @property
    def rows(self) -> int:
        """Rows of a batch that it takes."""
        return self.search.rows * len(self.streams)

    @property
    def read(self) -> int:
        """Tokens to read before the first step."""
        return len(self.prompt) - 1 if self.source is None else len(self.source)

    @property
    def columns(self) -> int:
        """Columns of a cache that each of its rows comes to take."""
        return self.limit if self.source is not None else len(self.prompt) - 1 + self.limit

    def make_texts(self) -> Sequence[BeamText | ChosenText]:
        """Its texts, as a batch takes them."""
        self.left, search = len(self.streams), self.search
        if isinstance(search, BeamSearch):
            self.texts = [BeamText(search, self.prompt, self.limit)]
            return self.texts
        self.texts = [
            ChosenText(search, self.prompt, self.limit, self.end_ids, stream, self._hook(number))
            for number, stream in enumerate(self.streams)
        ]
        return self.texts

    def _hook(self, number: int) -> Callable[[int], bool] | None:
        return None if self.stopped is None else partial(self.stopped, number)


@dataclass(frozen=True)
class Score:
    """What the model says of a token of the prompt; best: the most probable ones in its place."""

    token: int
    log_probability: float
    best: Best


@dataclass(frozen=True)
class Scored:
    """The prompt of a job was read, and these are its tokens but the first."""

    job: Job
    scores: list[Score]


@dataclass(frozen=True)
class Grown:
    """A text of a job has one more token."""

    job: Job
    number: int
    chosen: Chosen


@dataclass(frozen=True)
class Finished:
    """All texts of a job are at their end."""

    job: Job


@dataclass(frozen=True)
class Given:
    """A ticket comes to nothing."""

    error: BaseException


Event = Scored | Grown | Finished | Given


class Ticket:
    """One request.

    Args:
        jobs: its texts. seconds: until its deadline.
    """

    def __init__(self, jobs: Sequence[Job], seconds: float) -> None:
        self.jobs, self.seconds = list(jobs), seconds
        self.arrived = time.monotonic()
        self.deadline = self.arrived + seconds
        self.left = len(self.jobs)
        self.first_token: float | None = None
        self.over = False
        self._given_up = False
        self._queue: asyncio.Queue[Event] = asyncio.Queue()
        self.loop: asyncio.AbstractEventLoop | None = None
        for job in self.jobs:
            job.ticket = self

    def enter(self) -> None:
        """In the event loop in which its events are waited for, before it is submitted."""
        self.loop = asyncio.get_running_loop()

    def give_up(self) -> None:
        """In the event loop: nobody waits any more. The model's thread forgets it before its next step."""
        self._given_up = True
        self._queue.put_nowait(Given(Gone()))

    @property
    def given_up(self) -> bool:
        return self._given_up

    def deliver(self, event: Event) -> None:
        """In the event loop."""
        self._queue.put_nowait(event)

    async def events(self) -> AsyncIterator[Event]:
        """What happens, until all jobs are finished.

        Raises:
            Late: the deadline has passed. Gone: it was given up. And whatever the model's thread met.
        """
        left = len(self.jobs)
        try:
            while left:
                try:
                    async with asyncio.timeout(max(0.0, self.deadline - time.monotonic())):
                        event = await self._queue.get()
                except TimeoutError:
                    raise Late(self.seconds) from None
                if isinstance(event, Given):
                    raise event.error
                left -= isinstance(event, Finished)
                yield event
        finally:
            self.give_up()
