"""A server's log: one JSON object a line, on standard error. What users write never stands in it."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any


class Lines(logging.Formatter):
    """A record as JSON: time, level, and what is told."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        told: dict[str, Any] = {"time": when, "level": record.levelname.lower()}
        if isinstance(record.args, dict) and record.args:
            told |= record.args
        else:
            told["message"] = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            # Where it happened, not what was in hand: messages of exceptions may quote texts.
            error = record.exc_info[1]
            told["error"], told["at"] = type(error).__name__, _places(error)
        return json.dumps(told, ensure_ascii=False)


def _places(error: BaseException) -> list[str]:
    found: list[str] = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        found.append(f"{code.co_filename.rpartition('sublayer/')[2]}:{trace.tb_lineno}")
        trace = trace.tb_next
    return found[-8:]


def to_standard_error(*, requests: bool) -> None:
    """Write the log; with `requests`, a line for each of them too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    # What the libraries below have to say is a line of the same form.
    for name, level in (("sublayer.serve", logging.INFO), ("asyncio", logging.WARNING), ("uvicorn", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(level)
    logging.getLogger("sublayer.serve.access").setLevel(logging.INFO if requests else logging.WARNING)
