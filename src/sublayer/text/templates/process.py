"""The process that renders chat templates, seen from here: asked, limited, ended, and started anew.

What is limited where. Time: two seconds of processor time on Linux and macOS, and thirty seconds by the clock
everywhere. Memory: half a gigabyte on Linux; macOS and Windows limit no process's memory, so that there it is bounded
by what can be filled in the time. The process has no files to write and no children on Linux, and nothing of the
working folder or of the site's packages can be imported by it.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from sublayer.errors import InputError

SECONDS = 2.0
"""Of processor time for a request."""
CLOCK = 30.0
"""Seconds by the clock for a request, the start of the process included."""
MEMORY = 512 * 1024 * 1024
"""Bytes that the process may have."""
LONGEST = 4_000_000
"""Characters that a template may write."""
TOGETHER = 32
"""Conversations to be rendered at one request, where there are many."""
_ANSWER = 64 * 1024 * 1024
"""Bytes of an answer: the longest text, escaped, and its spans."""

_START = "import sys; sys.path += sys.argv.pop(1).split('\\n'); from templates.worker import main; main()"


class TemplateProcess:
    """One process that answers requests, one at a time; started when first asked, and anew after a fault."""

    def __init__(self, seconds: float = SECONDS, clock: float = CLOCK, memory: int = MEMORY) -> None:
        self._seconds, self._clock, self._memory = seconds, clock, memory
        self._forget()
        atexit.register(self.close)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The worker's answer to `request`.

        Raises:
            InputError: the request is not plain data, the process cannot be started, or it was ended: for its time, or
                because it crashed.
        """
        asked = _written(request)
        with self._lock:
            process = self._process or self._start()
            late = threading.Event()

            def end() -> None:
                late.set()
                process.kill()

            clock = threading.Timer(self._clock, end)
            clock.daemon = True
            clock.start()
            try:
                answer = _exchange(process, asked)
            except BaseException:
                # Whatever it still says would be taken for the answer to the next request.
                self._end()
                raise
            finally:
                clock.cancel()
            if answer is None or any(one.get("error") == "memory" for one in answer.get("each", (answer,))):
                self._end()
            if answer is None:
                raise self._fault(process.returncode, late.is_set())
            return answer

    def ask_each(self, common: Mapping[str, Any], requests: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """The answers to several requests that have `common` in common, in their order: sooner than one by one, for
        most of what a small one takes is going there and back.

        Raises:
            InputError: as `ask`, when the answer at fault is reached.
        """
        answers: list[dict[str, Any]] | None = None
        with suppress(InputError):
            answers = self.ask({"common": common, "each": requests}).get("each")
        if answers is None or any(one.get("error") == "memory" for one in answers):
            # One of them is at fault. Each may have all the time and the memory there is.
            yield from (self.ask({**common, **one}) for one in requests)
        else:
            yield from answers

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._end()

    def _start(self) -> subprocess.Popen[bytes]:
        # Only what is named here can be imported besides the standard library: -I and -S keep everything else out.
        paths = [str(Path(__file__).parent.parent)]
        for package in ("jinja2", "markupsafe"):
            found = find_spec(package)
            if found is None or found.origin is None:
                raise InputError(f"{package} is not installed", "pip install jinja2")
            paths.append(str(Path(found.origin).parent.parent))
        numbers = [str(self._seconds), str(self._memory), str(LONGEST)]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _START, "\n".join(dict.fromkeys(paths)), *numbers],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            raise InputError(
                f"the process that renders chat templates cannot be started: {error.strerror or error}",
                "End other programs, or allow more processes.",
            ) from None
        return self._process

    def _end(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait()
        self._process = None

    def _forget(self) -> None:
        """In a fork the process is the parent's: it must neither be asked nor ended."""
        self._inherited = getattr(self, "_process", None)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def _fault(self, code: int | None, late: bool) -> InputError:
        if late or code == -getattr(signal, "SIGPROF", 0):
            spent = f"{self._clock:g} s" if late else f"{self._seconds:g} s of processor time"
            return InputError(f"the chat template took more than {spent}", "It may never end: do not use it.")
        return InputError(
            f"the chat template ended the process that renders it (exit status {code})",
            "It is nested too deep or asks for too much memory: do not use it.",
        )


def _written(request: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(request).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"the conversation is not plain data: {error}", "Give strings, numbers, lists and tables, as in JSON."
        ) from None


def _exchange(process: subprocess.Popen[bytes], asked: bytes) -> dict[str, Any] | None:
    """The answer; None if the process has ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    held = memoryview(len(asked).to_bytes(8, "big") + asked)
    try:
        while held:
            held = held[process.stdin.write(held) :]
    except OSError:  # it has gone, by Windows' word or by ours
        return None
    size = _read(process.stdout, 8)
    if size is None or int.from_bytes(size, "big") > _ANSWER:
        return None
    answer = _read(process.stdout, int.from_bytes(size, "big"))
    return None if answer is None else json.loads(answer)


def _read(stream: IO[bytes], size: int) -> bytes | None:
    held = bytearray()
    while len(held) < size:
        part = stream.read(size - len(held))
        if not part:
            return None
        held += part
    return bytes(held)


PROCESS = TemplateProcess()
"""The one that all chat templates of this process share."""
