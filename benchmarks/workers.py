"""Contenders in processes of their own, asked for one round at a time.

What one contender imports, how it sets the allocator and what it leaves in memory neither helps nor hurts another.
Rounds are interleaved (A, B, C, A, B, C, ...), so that what disturbs the machine disturbs all alike. Driver and worker
talk in JSON, a line each way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

Message = dict[str, Any]
# Threads of a finished round spin a little before they sleep; the next contender's round begins after that.
REST = 0.3


class Worker:
    """A subprocess that runs `script`, which ends in `serve(...)`. Its standard error is ours."""

    def __init__(self, script: Path, settings: Message) -> None:
        self.name = str(settings.get("contender", script.stem))
        self._process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        self.started = self.ask(settings)

    def ask(self, message: Message) -> Message:
        """Send `message`, wait for the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the worker '{self.name}' ended with code {self._process.wait()}; see above for why")
        return json.loads(answer)

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def interleave(
    workers: Mapping[str, Worker], message: Callable[[int], Message], rounds: int
) -> dict[str, list[Message]]:
    """`rounds` answers of each worker to `message(round)`, one worker after the other in every round."""
    answers: dict[str, list[Message]] = {name: [] for name in workers}
    for number in range(rounds):
        for name, worker in workers.items():
            time.sleep(REST)
            answers[name].append(worker.ask(message(number)))
    return answers


def fit_threads(
    workers: Mapping[str, Worker],
    message: Message,
    candidates: Sequence[int],
    speed: Callable[[Message], float] = lambda answer: 1 / answer["seconds"],
) -> dict[str, int]:
    """Return the number of threads with which each worker answers `message` fastest, and leave it set.

    A rival is not made slower by more threads than it can use. The first answer of each number warms up.
    """
    chosen: dict[str, int] = {}
    for name, worker in workers.items():
        found: dict[int, float] = {}
        for threads in candidates if len(candidates) > 1 else ():
            worker.ask({"threads": threads})
            worker.ask(message)
            time.sleep(REST)
            found[threads] = speed(worker.ask(message))
        chosen[name] = max(found, key=found.__getitem__, default=candidates[0])
        worker.ask({"threads": chosen[name]})
    return chosen


def serve(start: Callable[[Message], tuple[Message, Callable[[Message], Message]]]) -> None:
    """The worker's side. `start` takes the settings and gives the first answer, and what answers all that follow.

    {"threads": n} is answered here: from then on torch computes with so many.
    """
    # Whatever a library prints must not get between the lines of JSON.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    answer: Callable[[Message], Message] | None = None
    for line in sys.stdin:
        message = json.loads(line)
        if answer is None:
            reply, answer = start(message)
        elif message.keys() == {"threads"}:
            reply = _use_threads(message["threads"])
        else:
            reply = answer(message)
        out.write(json.dumps(reply) + "\n")
        out.flush()


def _use_threads(number: int) -> Message:
    # Not before: what a worker imports, and from where, is its own affair.
    import torch

    torch.set_num_threads(number)
    return {"threads": number}
