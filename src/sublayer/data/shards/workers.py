"""Work shared out to processes, of which none outlives the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import Any

from sublayer.errors import DataError

AHEAD = 2
"""Jobs that are handed out for each worker: one to do, one to go on with."""


def each(
    do: Callable[..., None], jobs: Iterable[tuple[Any, ...]], workers: int, done: Callable[[], None] = lambda: None
) -> None:
    """Call `do` with each of `jobs`, which are made as they are wanted, in so many processes; one is this one.

    Raises:
        DataError: a worker was ended from outside. Whatever `do` raises; the workers are then ended.
    """
    if workers == 1:
        for job in jobs:
            do(*job)
            done()
        return
    # Nothing of this process's threads and locks is to be inherited.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    waiting = iter(jobs)
    with _safe_path(), ProcessPoolExecutor(workers, context, _begin, (stop,)) as pool:
        try:
            running: set[Future[None]] = {pool.submit(do, *job) for job in islice(waiting, AHEAD * workers)}
            while running:
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    future.result()
                    done()
                running |= {pool.submit(do, *job) for job in islice(waiting, len(ended))}
        except BrokenProcessPool:
            raise DataError(
                "a worker was ended from outside, perhaps for its memory",
                "Give fewer --workers; what is done is kept.",
            ) from None
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def _safe_path() -> Generator[None]:
    """Python processes that are started inside the block import nothing from the working folder before they are told
    where this one imports from."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def _begin(stop: Any) -> None:
    """In a worker: leave the keyboard to the process that started it, compute with one thread, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        while not stop.wait(0.2):
            if not parent.is_alive():
                break
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
