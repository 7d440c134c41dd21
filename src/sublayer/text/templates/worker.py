"""The process that renders chat templates: requests from standard input, answers to standard output.

A request and an answer are JSON, with their length in bytes before them (8 bytes, big-endian). Time and memory are
limited here, before anything of a template is looked at; whoever started this process ends it when it does not answer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, cast

from jinja2 import Environment, TemplateError
from jinja2.exceptions import SecurityError
from jinja2.meta import find_undeclared_variables

from .provenance import joined, of_user, plain, spans
from .sandbox import Sandbox, parsed

ROLES = frozenset(
    {
        "assistant", "critic", "developer", "documents", "environment", "function", "ipython", "model", "observation",
        "system", "tool", "tool_call", "tool_response", "user",
    }
)  # fmt: skip
"""Who may speak by a name that a template can make a special token of, as "<|" + role + "|>" does."""
KEPT = 16
"""Compiled templates that are kept."""


class Long(Exception):
    """A template wrote more than it may."""


class Renderer:
    """Templates compiled and run.

    longest: characters that a template may write. begin: called before each conversation.
    """

    def __init__(self, longest: int, begin: Callable[[], None]) -> None:
        self._longest, self._begin = longest, begin
        self._environment: Environment = Sandbox()
        self._compiled: dict[str, tuple[Any, list[str]]] = {}

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request: `variables` of a template alone, a conversation rendered, or an `error`.

        Of several requests, in which what they have in common stands once, `each` answer.
        """
        if "each" in request:
            return {"each": [self.answer({**request["common"], **one}) for one in request["each"]]}
        self._begin()
        try:
            template, variables = self._template(request["source"])
        except MemoryError:
            # Python's own parser says this of code that is nested too deep, too.
            return {"error": "damaged", "message": "it is nested too deep, or too large"}
        except Exception as error:  # whatever a template's source makes the compiler do
            return {"error": "damaged", "message": f"{type(error).__name__}: {error}"}
        if request["messages"] is None:
            return {"variables": variables}
        try:
            return self._rendered(template, request)
        except SecurityError as error:
            return {"error": "reaches", "message": str(error)}
        except TemplateError as error:
            return {"error": "refuses", "message": str(error.message)}
        except Long:
            return {"error": "long", "message": ""}
        except MemoryError:
            return {"error": "memory", "message": ""}
        except Exception as error:  # whatever a template does with a conversation
            return {"error": "fails", "message": f"{type(error).__name__}: {error}"}

    def _template(self, source: str) -> tuple[Any, list[str]]:
        found = self._compiled.get(source)
        if found is None:
            variables = sorted(find_undeclared_variables(parsed(self._environment, source)))
            found = self._environment.from_string(source), variables
            while len(self._compiled) >= KEPT:
                del self._compiled[next(iter(self._compiled))]
            self._compiled[source] = found
        return found

    def _rendered(self, template: Any, request: Mapping[str, Any]) -> dict[str, Any]:
        messages = [_speaking(message) for message in request["messages"]]
        given = {
            "tools": _of_user(request["tools"]),
            **request["tokens"],
            **{name: _of_user(value) for name, value in request["values"].items()},
        }

        def run(turns: list[Any], prompted: bool) -> str:
            parts: list[str] = []
            length = 0
            context = {"messages": turns, "add_generation_prompt": prompted, **given}
            for part in template.generate(context):
                parts.append(part)
                length += len(part)
                if length > self._longest:
                    raise Long
            return joined(parts)

        whole = run(messages, request["prompted"])
        cuts = [run(messages[:turns], prompted) for turns, prompted in request["cuts"]]
        return {
            "text": plain(whole),
            "user": spans(whole),
            "cuts": [[len(cut), whole.startswith(cut)] for cut in cuts],
        }


def _speaking(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as a template sees it: all of it is the user's, except who speaks."""
    marked: dict[str, Any] = _of_user(message)
    return marked | {"role": message["role"]} if message["role"] in ROLES else marked


def _of_user(value: Any) -> Any:
    if isinstance(value, str):
        return of_user(value)
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {of_user(key): _of_user(each) for key, each in items}
    if isinstance(value, list):
        return [_of_user(each) for each in cast("list[Any]", value)]
    return value


def limit_memory(size: int) -> None:
    """Refuse this process more than `size` bytes of address space, any file, and any child, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for kind, most in (("RLIMIT_AS", size), ("RLIMIT_FSIZE", 0), ("RLIMIT_NPROC", 0), ("RLIMIT_CORE", 0)):
        try:
            resource.setrlimit(getattr(resource, kind), (most, most))
        except (AttributeError, OSError, ValueError):  # macOS has not all of them
            continue


def limit_time(seconds: float) -> None:
    """End this process after `seconds` of processor time from now, where the system can; 0 takes the limit away."""
    import signal

    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _read(stream: BinaryIO, size: int) -> bytes:
    held = stream.read(size)
    if len(held) < size:  # whoever asks has gone
        raise SystemExit(0)
    return held


def main() -> None:
    """Answer until standard input ends. Arguments: seconds, bytes of memory, longest text."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Control-C is meant for whoever asks.
    seconds, memory, longest = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    renderer = Renderer(longest, lambda: limit_time(seconds))
    limit_memory(memory)
    source, target = sys.stdin.buffer, sys.stdout.buffer
    while True:
        held = _read(source, int.from_bytes(_read(source, 8), "big"))
        limit_time(seconds)
        try:
            answer = json.dumps(renderer.answer(json.loads(held))).encode("ascii")
        except (MemoryError, RecursionError):
            answer = b'{"error": "memory", "message": ""}'
        limit_time(0)
        target.write(len(answer).to_bytes(8, "big") + answer)
        target.flush()
