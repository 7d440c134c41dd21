"""Continuous batching: one thread owns the model, and whatever is to be decoded runs in its batches.

Between two steps texts leave (finished, given up, late) and others join, as many as the limits allow, in the order of
their coming. Prompts are read a chunk at a time between the steps, so that a long one stops nobody; of prompts that
begin alike the beginning is read once. A batch has texts of one number of rows (1, or the beams), so there is one for
each number that is asked for. What a text gets does not depend on what runs beside it (`generation/batch.py`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

import torch

from sublayer.generation.batch import Batch
from sublayer.generation.loop import Best, ChosenText, best_of
from sublayer.generation.model_steps import ModelSteps
from sublayer.generation.top import top
from sublayer.models.backend import DecoderBackend, S, read
from sublayer.models.batching import padded
from sublayer.serving.delivery import Call, Promise, deliver
from sublayer.serving.limits import BatchLimits
from sublayer.serving.metrics import ModelMetrics
from sublayer.serving.model_thread import ModelThread
from sublayer.serving.prefixes import LEAST, Prefixes, shared
from sublayer.serving.refusals import Busy, Failed, Late, Refusal
from sublayer.serving.tickets import Event, Finished, Given, Grown, Job, Score, Scored, Ticket

log = logging.getLogger("sublayer.serve")
R = TypeVar("R")
Key = tuple[int, bool]
"""Rows of a text; whether its search asks for all logits. With beams either is a batch of its own: what the engine and
what torch make of one row's logits differ in the last bit, and beams add up."""


@dataclass(eq=False)
class _Reading:
    """A prompt of which a part is read."""

    job: Job
    state: Any
    read: int
    scores: list[Score] = field(default_factory=lambda: list[Score]())


class Scheduler(ModelThread, Generic[S]):
    """The running batches of one model.

    Args:
        encodes: whether the model reads a source with an encoder.
    """

    def __init__(
        self,
        backend: DecoderBackend[S],
        device: torch.device,
        metrics: ModelMetrics,
        *,
        encodes: bool,
        limits: BatchLimits | None = None,
    ) -> None:
        super().__init__()
        self.limits = BatchLimits() if limits is None else limits
        self._backend, self._device, self._metrics, self._encodes = backend, device, metrics, encodes
        self._steps = ModelSteps(backend, device)
        self._prefixes = Prefixes(self.limits.prefixes)
        self._waiting: deque[Job] = deque()
        self._readings: deque[_Reading] = deque()
        self._batches: dict[Key, Batch[S]] = {}
        self._owners: dict[Any, tuple[Job, int]] = {}
        self._outbox: dict[asyncio.AbstractEventLoop, list[tuple[Ticket, Event]]] = {}
        self._calls: deque[Call[Any]] = deque()
        self._ended = False
        self._pace = 0.0  # seconds between two texts that were finished, lately
        self._last_finished = time.monotonic()
        self._thread.start()

    # --- from other threads -------------------------------------------------------------------------------------------

    def submit(self, ticket: Ticket) -> None:
        """Let the jobs of a ticket wait for their turn. In the event loop that waits for them.

        Raises:
            Busy: too many wait. Stopping: nothing new is taken. Refusal: a text would never fit.
        """
        ticket.enter()
        for job in ticket.jobs:
            if job.rows > self.limits.rows or job.rows * job.columns > self.limits.cache_tokens:
                raise Refusal(
                    f"{job.rows} rows of {job.columns} tokens are more than this server's batch holds "
                    f"({self.limits.rows} rows, {self.limits.cache_tokens} tokens)",
                    "Ask for fewer beams, answers or tokens.",
                )
        with self._changed:
            self._require_alive()
            waiting = len(self._waiting)
            if waiting and waiting + len(ticket.jobs) > self.limits.waiting:
                self._metrics.refused()
                raise Busy(waiting, waiting * self._pace)
            self._waiting += ticket.jobs
            self._metrics.queue(len(self._waiting))
            self._changed.notify()

    async def call(self, function: Callable[[], R]) -> R:
        """What `function` gives, computed in the model's thread between two steps: what the steps run on is its own."""
        made = Call(function, Promise[R]())
        with self._changed:
            ended = self._ended
            if not ended:
                self._calls.append(made)
                self._changed.notify()
        return await (asyncio.to_thread(function) if ended else made.promise.kept())

    # --- the model's thread -------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._has_work or self._stopping)
                if not self._has_work:
                    self._ended = True
                    return
            try:
                self._settle()
                if self._calls:
                    self._calls.popleft().run()
                self._admit()
                self._read_on()
                for key, batch in list(self._batches.items()):
                    self._step(key, batch)
            except BaseException:  # nobody else would hear of it, and the next request deserves its answer
                log.exception("the scheduler has met an error")
                self._fail_everything()
            self._count()
            self._flush()

    @property
    def _has_work(self) -> bool:
        return bool(self._waiting or self._readings or self._batches or self._calls)

    def _settle(self) -> None:
        """Let go of what nobody waits for, and of what is late."""
        now = time.monotonic()

        def gone(job: Job) -> bool:
            if not job.ticket.over and now > job.ticket.deadline:
                self._end(job.ticket, Late(job.ticket.seconds))
            return job.ticket.over or job.ticket.given_up

        with self._changed:
            if any(map(gone, self._waiting)):
                self._waiting = deque(job for job in self._waiting if not gone(job))
        self._readings = deque(reading for reading in self._readings if not gone(reading.job))
        for key, batch in list(self._batches.items()):
            left = [text for text in batch.running if gone(self._owners[text][0])]
            for text in left:
                text.done = True
                self._owners.pop(text)
            if left:
                self._drop(key, batch, 1.0)

    def _admit(self) -> None:
        """Let waiting jobs in, in their order, as long as they fit."""
        while True:
            with self._changed:
                if not self._waiting or not self._fits(self._waiting[0]):
                    return
                job = self._waiting.popleft()
                self._metrics.queue(len(self._waiting))
                together = [job]
                if not self._is_read_alone(job):
                    together += self._others_like(job)
            self._metrics.waited(time.monotonic() - job.ticket.arrived)
            try:
                self._begin(together)
            except Exception as error:
                if not isinstance(error, Refusal):
                    log.exception("a prompt could not be read")
                for each in together:
                    self._end(each.ticket, error if isinstance(error, Refusal) else Failed())

    def _is_read_alone(self, job: Job) -> bool:
        """Whether a prompt is read by itself, a chunk at a time, or together with other short ones."""
        if self._encodes:
            return False
        return job.scored is not None or job.read > self.limits.chunk or self._prefixes.longest(job.prompt[:-1]) > 0

    def _others_like(self, job: Job) -> list[Job]:
        """Take out of the queue what can be read with `job` at once: the jobs right behind it, of the same shape."""
        taken: list[Job] = []
        longest, rows, columns = job.read, job.rows, job.columns
        while self._waiting:
            other = self._waiting[0]
            longest, rows, columns = max(longest, other.read), rows + other.rows, max(columns, other.columns)
            if (
                (len(taken) + 2) * longest > self.limits.chunk
                or _key(other) != _key(job)
                or not self._holds(rows, rows * columns)
                or (not self._encodes and self._is_read_alone(other))
                # What begins alike is read once: the second waits for the first.
                or (
                    not self._encodes
                    and any(shared(one.prompt[:-1], other.prompt[:-1]) >= LEAST for one in [job, *taken])
                )
            ):
                break
            taken.append(self._waiting.popleft())
        return taken

    def _begin(self, jobs: list[Job]) -> None:
        """Read sources or short prompts at once, or begin with a long one."""
        if self._encodes:
            rows, ragged = self._padded([job.source or [] for job in jobs])
            key, capacity = _key(jobs[0]), max(job.limit for job in jobs)
            self._join(jobs, self._backend.start(rows, ragged, num_beams=key[0], capacity=capacity))
        elif len(jobs) == 1:
            self._readings.append(self._reading(jobs[0]))
        else:
            rows, ragged = self._padded([job.prompt[:-1] for job in jobs])
            self._metrics.read(sum(job.read for job in jobs))
            self._join(jobs, self._backend.start(rows, ragged, capacity=max(job.limit for job in jobs)))

    def _reading(self, job: Job) -> _Reading:
        prompt = job.prompt[:-1]
        if job.scored is None:
            forked = self._prefixes.fork(prompt, job.columns)
            if forked is not None:
                self._metrics.shared(forked[0])
                return _Reading(job, forked[1], forked[0])
        empty = torch.empty(1, 0, dtype=torch.int64, device=self._device)
        return _Reading(job, self._backend.start(empty, capacity=max(1, job.columns)), 0)

    def _read_on(self) -> None:
        """Read one more chunk of one prompt; what has been read whole joins its batch."""
        room = self.limits.chunk
        while self._readings and room > 0:
            reading = self._readings.popleft()
            job, prompt = reading.job, reading.job.prompt
            part = prompt[reading.read : min(len(prompt) - 1, reading.read + room)]
            try:
                if part:
                    self._feed(reading, part)
            except Exception:
                log.exception("a prompt could not be read")
                self._end(job.ticket, Failed())
                continue
            reading.read += len(part)
            room -= len(part)
            if reading.read < len(prompt) - 1:
                self._readings.append(reading)
                continue
            if job.scored is not None:
                self._send(job.ticket, Scored(job, reading.scores))
            elif job.read >= LEAST:
                self._prefixes.add(prompt[:-1], reading.state)
            if job.limit == 0:
                self._finish(job)
            else:
                self._join([job], reading.state)

    def _feed(self, reading: _Reading, part: list[int]) -> None:
        self._metrics.read(len(part))
        tokens = torch.tensor([part], device=self._device)
        best = reading.job.scored
        if best is None:
            read(self._backend, tokens, reading.state)
            return
        logits = self._backend.step(tokens, reading.state)[0].float().log_softmax(dim=-1)
        following = reading.job.prompt[reading.read + 1 : reading.read + 1 + len(part)]
        index = torch.tensor(following, device=self._device).unsqueeze(1)
        gains = cast("list[float]", logits.gather(1, index).squeeze(1).tolist())
        others: list[Best] = [()] * len(part)
        if best:
            others = best_of(*top(logits, min(best, logits.shape[-1])), best)
        reading.scores += [Score(*one) for one in zip(following, gains, others, strict=True)]

    def _join(self, jobs: list[Job], state: Any) -> None:
        """Let what was read run in the batch of its kind."""
        key = _key(jobs[0])
        if not self._encodes:
            if key[0] > 1:
                state.expand(key[0])
            elif any(len(job.streams) > 1 for job in jobs):
                again = [place for place, job in enumerate(jobs) for _ in job.streams]
                state.keep(torch.tensor(again, device=self._device))
        texts = [text for job in jobs for text in job.make_texts()]
        for job in jobs:
            for number, text in enumerate(job.texts):
                self._owners[text] = job, number
        if key not in self._batches:
            self._batches[key] = Batch(self._steps, rows=key[0])
        self._batches[key].join(state, texts)

    def _step(self, key: Key, batch: Batch[S]) -> None:
        running = batch.running
        began = time.perf_counter()
        try:
            batch.step()
        except Exception:
            log.exception("a batch could not be decoded")
            for text in running:
                self._end(self._owners.pop(text)[0].ticket, Failed())
            del self._batches[key]
            return
        self._metrics.stepped(len(running) * batch.rows, time.perf_counter() - began)
        for text in running:
            self._report(text)
        # To drop texts copies the cache, and those that come take the places of those that go.
        self._drop(key, batch, 0.5 if self._waiting or self._readings else 0.75)

    def _drop(self, key: Key, batch: Batch[S], most: float) -> None:
        batch.drop(most)
        if not batch.texts:
            del self._batches[key]

    def _report(self, text: Any) -> None:
        """Tell what a step has done to a text."""
        job, number = self._owners[text]
        if text.error is not None:
            self._owners.pop(text)
            self._end(job.ticket, text.error)
            return
        if job.ticket.first_token is None:
            job.ticket.first_token = time.monotonic()
            self._metrics.first_token(job.ticket.first_token - job.ticket.arrived)
        if isinstance(text, ChosenText) and text.last is not None:
            self._send(job.ticket, Grown(job, number, text.last))
        if text.done:
            self._owners.pop(text)
            job.left -= 1
            if not job.left:
                self._finish(job)

    def _finish(self, job: Job) -> None:
        now = time.monotonic()
        self._pace += 0.1 * (now - self._last_finished - self._pace)
        self._last_finished = now
        job.ticket.left -= 1
        job.ticket.over = job.ticket.over or job.ticket.left == 0
        self._send(job.ticket, Finished(job))

    def _end(self, ticket: Ticket, error: BaseException) -> None:
        """A ticket comes to nothing; its other jobs are let go of before the next step."""
        if not ticket.over:
            ticket.over = True
            self._send(ticket, Given(error))

    def _fail_everything(self) -> None:
        with self._changed:
            jobs = [*self._waiting, *(one.job for one in self._readings), *(job for job, _ in self._owners.values())]
            self._waiting.clear()
        self._readings.clear()
        self._batches.clear()
        self._owners.clear()
        self._prefixes = Prefixes(self.limits.prefixes)
        for job in jobs:
            self._end(job.ticket, Failed())

    # --- what fits ----------------------------------------------------------------------------------------------------

    def _fits(self, job: Job) -> bool:
        return self._holds(job.rows, job.rows * job.columns)

    def _holds(self, rows: int, tokens: int) -> bool:
        """Whether so much more fits beside what runs and what is being read."""
        jobs = {job for job, _ in self._owners.values()} | {reading.job for reading in self._readings}
        held: dict[Key, list[Job]] = {}
        for job in jobs:
            held.setdefault(_key(job), []).append(job)
        # Rows of a batch all have the columns of its longest.
        for some in held.values():
            own = sum(job.rows for job in some)
            rows, tokens = rows + own, tokens + own * max(job.columns for job in some)
        return rows <= self.limits.rows and tokens <= self.limits.cache_tokens

    def _padded(self, rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor | None]:
        # What pads is masked: any token does.
        return padded(rows, 0, self._device)

    # --- to the event loop --------------------------------------------------------------------------------------------

    def _send(self, ticket: Ticket, event: Event) -> None:
        assert ticket.loop is not None
        self._outbox.setdefault(ticket.loop, []).append((ticket, event))

    def _flush(self) -> None:
        """Hand on what has happened, at once: to wake the event loop costs more than what it is told."""
        outbox, self._outbox = self._outbox, {}
        for loop, events in outbox.items():
            deliver(loop, events)

    def _count(self) -> None:
        rows = sum(len(batch.running) * batch.rows for batch in self._batches.values())
        self._metrics.queue(len(self._waiting))
        self._metrics.batch(rows, len(self._readings), self._prefixes.tokens)


def _key(job: Job) -> Key:
    return job.search.rows, job.search.rows > 1 and job.search.ranks is None
