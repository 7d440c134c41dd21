"""What a client may ask for at most, and what a batch may hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchLimits:
    """What a model's running batch holds at most.

    rows: texts that are decoded together, beams and samples counted each. cache_tokens: columns of the cache of all
    rows, those of prompts and those still to come. chunk: tokens of prompts that are read between two steps.
    waiting: texts that may wait; whoever comes then is told to come again. prefixes: tokens of prompts that are kept
    for other prompts that begin alike.
    """

    rows: int = 32
    cache_tokens: int = 32_768
    chunk: int = 256
    waiting: int = 512
    prefixes: int = 8_192


@dataclass(frozen=True)
class RequestLimits:
    """What one request may ask for at most.

    characters: of one text. texts: of a request. n: answers to a text. logprobs: alternatives to a token. stop: stop
    strings, and characters of each. body, headers: bytes. seconds: until the answer is there. reading: seconds in which
    a request must have come.
    """

    characters: int = 100_000
    texts: int = 256
    n: int = 16
    logprobs: int = 20
    stop: int = 4
    stop_characters: int = 1_000
    messages: int = 1_000
    tools: int = 128
    body: int = 4 * 1024 * 1024
    headers: int = 32 * 1024
    seconds: float = 300.0
    reading: float = 10.0
