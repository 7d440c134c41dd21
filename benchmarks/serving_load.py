"""Open-loop load: requests that come when they come, whether or not the earlier ones have been answered.

A closed loop, whose clients wait for their answer before they ask again, asks a slow server less, and so never sees how
long its queue would grow. Arrivals are a Poisson process of a fixed rate, the same one for every contender; the latency
of a request counts from when it should have been sent.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Body = dict[str, Any]
SEED = 1
PATIENCE = 60.0
"""Seconds after the last arrival; who has no answer by then counts as failed."""


@dataclass(frozen=True)
class Trial:
    """What a rate came to. rate: requests a second that were sent. p50, p95: seconds; infinite where too few came.
    answered: requests a second that were answered, until the last answer. failed: requests without an answer."""

    rate: float
    p50: float
    p95: float
    answered: float
    failed: int
    requests: int

    def holds(self, limit: float) -> bool:
        """Whether the 95th percentile is within `limit` seconds."""
        return self.p95 <= limit


def trial(address: str, path: str, bodies: Sequence[Body], rate: float, seconds: float) -> Trial:
    """Send `bodies` in turn at `rate` a second for `seconds`."""
    return asyncio.run(_trial(address, path, bodies, rate, seconds))


async def _trial(address: str, path: str, bodies: Sequence[Body], rate: float, seconds: float) -> Trial:
    draw = random.Random(SEED)
    times: list[float] = []
    at = draw.expovariate(rate)
    while at < seconds:
        times.append(at)
        at += draw.expovariate(rate)
    begin = time.perf_counter()
    tasks = [
        asyncio.create_task(_one(address, path, bodies[number % len(bodies)], begin + at))
        for number, at in enumerate(times)
    ]
    done, late = await asyncio.wait(tasks, timeout=seconds + PATIENCE) if tasks else (set(), set())
    for task in late:
        task.cancel()
    taken = [found for task in done if (found := task.result()) is not None]
    failed = len(tasks) - len(taken)
    latencies = [latency for latency, _ in taken] + [float("inf")] * failed
    if not latencies:
        return Trial(rate, float("inf"), float("inf"), 0.0, 0, 0)
    p50, p95 = np.percentile(latencies, [50, 95], method="higher").tolist()
    last = max((end for _, end in taken), default=begin + seconds) - begin
    return Trial(rate, p50, p95, len(taken) / last, failed, len(tasks))


async def _one(address: str, path: str, body: Body, when: float) -> tuple[float, float] | None:
    """Seconds to the answer, and when it came; None where there was none."""
    await asyncio.sleep(max(0.0, when - time.perf_counter()))
    try:
        status, _ = await post(address, path, body)
    except OSError:
        return None
    end = time.perf_counter()
    return (end - when, end) if status == 200 else None


async def post(address: str, path: str, body: Body) -> tuple[int, bytes]:
    """A request on a connection of its own: status and body."""
    host, _, port = address.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        held = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(held)}\r\n\r\n".encode() + held)
        whole = await reader.read()
    finally:
        writer.close()
    status, _, rest = whole.partition(b"\r\n")
    return int(status.split()[1]) if status else 0, rest.partition(b"\r\n\r\n")[2]


def highest(
    run: Callable[[float], Trial], first: float, limit: float, *, factor: float = 2.0, refine: int = 3, most: int = 8
) -> tuple[Trial | None, list[Trial]]:
    """The highest rate that holds `limit`, and all trials: up by `factor` until one does not, then halving.

    Args:
        first: the rate to begin with; where it does not hold, down from there. most: trials before the halving.
    """
    trials = [run(first)]
    low, high = (trials[0], None) if trials[0].holds(limit) else (None, trials[0])
    while (low is None or high is None) and len(trials) < most:
        trials.append(run(low.rate * factor if low is not None else high.rate / factor if high is not None else first))
        if trials[-1].holds(limit):
            low = trials[-1]
        else:
            high = trials[-1]
    for _ in range(refine if low is not None and high is not None else 0):
        assert low is not None
        assert high is not None
        trials.append(run((low.rate * high.rate) ** 0.5))
        if trials[-1].holds(limit):
            low = trials[-1]
        else:
            high = trials[-1]
    return low, trials
