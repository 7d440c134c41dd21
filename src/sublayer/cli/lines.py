"""Standard input as lines, for commands that work on one after another."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from sublayer.errors import DataError


def standard_input(batch: int) -> Iterator[list[str]]:
    """Lines as they come, `batch` at a time; one at a time where the other side waits for an answer (a terminal).

    Raises:
        DataError: a line is not UTF-8; the lines before it have been given.
    """
    size = 1 if sys.stdin.isatty() else batch
    chunk: list[str] = []
    for number, raw in enumerate(sys.stdin.buffer, start=1):
        try:
            chunk.append(raw.decode("utf-8").rstrip("\r\n"))
        except UnicodeDecodeError as error:
            yield chunk
            raise DataError(
                f"standard input, line {number}: not UTF-8 ({error.reason})", "Convert it to UTF-8."
            ) from None
        if len(chunk) >= size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
