"""The worker of `training_speed.py`: one contender, trained for a few steps at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from corpus import read_encoded
from training_contenders import CONTENDERS, Contender
from workers import Message, serve

from sublayer import config
from sublayer.data.loader import Loader

# A batch as its contender takes it, and its real target tokens.
Given = tuple[Any, int]


def start(settings: Message) -> tuple[Message, Callable[[Message], Message]]:
    """Make the contender; it answers rounds of {"seconds": s} or, on identical batches, {"steps": n, "first": i}."""
    torch.manual_seed(settings["seed"])
    pairs = read_encoded(Path(settings["data"]))
    contender = CONTENDERS[settings["contender"]](pairs, settings)
    ready = {"parameters": sum(p.numel() for p in contender.model.parameters()), "threads": torch.get_num_threads()}
    if settings["batches"] == "own":
        own = contender.own_batches()
        return ready, lambda ask: _for_seconds(contender, own, ask["seconds"])
    # The same bucketed batches for all, made before the clock starts.
    loader = Loader(pairs, config.Batching(tokens=settings["tokens"]), settings["seed"])
    held = [(contender.prepared(batch), batch.targets) for _, batch in islice(loader.batches(), settings["held"])]

    def answer(ask: Message) -> Message:
        if "seconds" in ask:
            return _for_seconds(contender, iter(held * 1000), ask["seconds"])
        return _for_batches(contender, [held[(ask["first"] + i) % len(held)] for i in range(ask["steps"])])

    return ready, answer


def _for_batches(contender: Contender, batches: list[Given]) -> Message:
    begin = time.perf_counter()
    for batch, _ in batches:
        contender.step(batch)
    return _result(begin, len(batches), sum(tokens for _, tokens in batches))


def _for_seconds(contender: Contender, batches: Iterator[Given], seconds: float) -> Message:
    steps = tokens = 0
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        batch, count = next(batches)
        contender.step(batch)
        steps += 1
        tokens += count
    return _result(begin, steps, tokens)


def _result(begin: float, steps: int, tokens: int) -> Message:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return {"steps": steps, "target_tokens": tokens, "seconds": time.perf_counter() - begin}


if __name__ == "__main__":
    serve(start)
