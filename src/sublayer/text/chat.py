"""Conversations as text: the chat template that a model brings, run in a sandbox.

A template is a Jinja program from somebody else. It sees the messages and nothing more: the insides of Python objects
are out of its reach, it cannot change what it is given, and what it may write and how often it may go round is bounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from sublayer.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import ImmutableSandboxedEnvironment

# A turn: "role" ("system", "user", "assistant", "tool") and "content", and whatever else the template knows.
Message = Mapping[str, Any]

LONGEST = 4_000_000
"""Characters that a template may write."""
MOST_ROUNDS = 1_000_000
"""Rounds that the ranges of a template may have, all together."""

# Unicode keeps these for use inside a program; one that the conversation does not have stands in the middle of what
# spells a special token there, until the template has run.
_NONCHARACTERS = tuple(chr(code) for code in range(0xFDD1, 0xFDF0))

# What makes long strings of short ones, and a format's field that is wide or takes its width from elsewhere.
_PADDING = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs", "format_map"})
_WIDTH = re.compile(r":[^}]*(\d{4}|\{)")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as text.

    Attributes:
        text: what the template wrote.
        quoted: places between characters inside what spells a special token but came from a message.
        answers: the characters that the assistant has to say, from (included) to (excluded), end token included; only
            from `render_answers`.
    """

    text: str
    quoted: tuple[int, ...] = ()
    answers: tuple[tuple[int, int], ...] = ()


class ChatTemplate:
    """A Jinja template that makes a text of a conversation, as Hugging Face's tokenizers define it.

    It has `messages`, `add_generation_prompt`, `tools`, the special tokens by name (`bos_token`, ...),
    `raise_exception(message)`, `strftime_now(format)`, and the filter `tojson`.
    """

    def __init__(
        self, source: str, special_tokens: Mapping[str, str] | None = None, markers: Collection[str] = ()
    ) -> None:
        """Compiles `source`.

        Args:
            special_tokens: the tokens that the template can name, such as `{"eos_token": "</s>"}`.
            markers: all spellings of special tokens: where a message has one, it stays text (`Rendered.quoted`).

        Raises:
            CheckpointError: `source` is not a template.
        """
        from jinja2 import TemplateError

        self.source = source
        self._special_tokens = dict(special_tokens or {})
        self._markers = tuple(sorted({*markers, *self._special_tokens.values()} - {""}, key=len, reverse=True))
        try:
            self._template: Template = self._environment.from_string(source)
        except (TemplateError, RecursionError) as error:
            raise CheckpointError(f"the chat template is damaged: {error}", "Copy the model's files anew.") from None

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **more: Any,
    ) -> Rendered:
        """The conversation as text; with `add_generation_prompt`, up to where the assistant's next answer begins.

        Args:
            tools: JSON schemas of functions that the model may call, for templates that know of them.
            more: further values for the template, such as Qwen3's `enable_thinking`.

        Raises:
            InputError: a message has no role, or the template refuses the conversation, reaches for what it must not
                have, or writes without end.
        """
        guard = _unused((messages, tools, more))
        given = {
            "messages": [self._guarded(_checked(place, message), guard) for place, message in enumerate(messages)],
            "tools": None if tools is None else self._guarded(list(tools), guard),
            "add_generation_prompt": add_generation_prompt,
            **self._special_tokens,
            **{name: self._guarded(value, guard) for name, value in more.items()},
        }
        return _unguarded(self._run(given), guard)

    def render_answers(self, messages: Sequence[Message], **more: Any) -> Rendered:
        """The whole conversation as text, and where in it the assistant's answers stand, end tokens included.

        Each answer is found by rendering the conversation up to it, and with it: what came before must be rendered the
        same whatever follows. What the template puts behind an end token, such as a line feed, is not the assistant's.

        Raises:
            InputError: as in `render`; nobody answers; or a turn is rendered in another way once more turns follow, as
                by templates that drop the thoughts of earlier answers.
        """
        whole = self.render(messages, **more)
        answers: list[tuple[int, int]] = []
        for place, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self.render(messages[:place], add_generation_prompt=True, **more).text
            after = self.render(messages[: place + 1], **more).text
            if not after.startswith(before) or not whole.text.startswith(after):
                raise InputError(
                    f"the chat template renders message {place} in another way when more follows, "
                    "so that there is no telling which characters are the answer",
                    "Cut the conversation after this answer, or train on it as plain text.",
                )
            answers.append((len(before), self._said(after, len(before))))
        if not answers:
            raise InputError("nobody answers in this conversation", 'Give a message with the role "assistant".')
        return Rendered(whole.text, whole.quoted, tuple(answers))

    def _said(self, text: str, start: int) -> int:
        """The end of the answer that begins at `start`: behind its end token, not behind the white space after that."""
        kept = text.rstrip()
        ended = any(kept.endswith(marker) for marker in self._markers)
        return max(start, len(kept)) if ended else len(text)

    def _run(self, given: Mapping[str, Any]) -> str:
        from jinja2 import TemplateError
        from jinja2.exceptions import SecurityError

        written: list[str] = []
        length = 0
        try:
            context = {**given, "range": _Range(MOST_ROUNDS)}
            for part in self._template.generate(context):
                written.append(part)
                length += len(part)
                if length > LONGEST:
                    raise InputError(
                        f"the chat template wrote more than {LONGEST:,} characters", "It may never end: do not use it."
                    )
        except SecurityError as error:
            raise InputError(
                f"the chat template reaches for what it must not have: {error}", "Do not use this model's template."
            ) from None
        except TemplateError as error:
            raise InputError(f"the chat template refuses this conversation: {error.message}") from None
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"the chat template fails on this conversation: {type(error).__name__}: {error}",
                "Check that every message has what the template asks for.",
            ) from None
        return "".join(written)

    def _guarded(self, value: Any, guard: str) -> Any:
        """A copy of `value` in which nothing spells a special token: `guard` stands after its first character."""
        if isinstance(value, str):
            for marker in self._markers:
                value = value.replace(marker, marker[0] + guard + marker[1:])
            return value
        if isinstance(value, Mapping):
            items = cast("Mapping[str, Any]", value).items()
            return {key: each if key == "role" else self._guarded(each, guard) for key, each in items}
        if isinstance(value, Sequence):
            return [self._guarded(each, guard) for each in cast("Sequence[Any]", value)]
        return value

    @cached_property
    def _environment(self) -> ImmutableSandboxedEnvironment:
        return _sandbox()


def _checked(place: int, message: Message) -> dict[str, Any]:
    """`message` without what is None (templates ask whether a key is there), if it is one.

    A role may be written next to the signs of a special token ("<|" + role + "|>"), so it is a plain word.
    """
    role = message.get("role")
    if not isinstance(role, str) or not role.replace("_", "").replace("-", "").isalnum():
        raise InputError(
            f"message {place} has the role {role!r}", 'Say who speaks: "system", "user", "assistant" or "tool".'
        )
    return {key: value for key, value in message.items() if value is not None}


def _unused(given: Any) -> str:
    # Every escape of JSON is undone by looking at the strings themselves.
    present = set("".join(_strings(given)))
    free = [character for character in _NONCHARACTERS if character not in present]
    if not free:
        raise InputError("the conversation has all of Unicode's noncharacters U+FDD1 to U+FDEF", "It is no text.")
    return free[0]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in cast("Mapping[Any, Any]", value).items():
            yield str(key)
            yield from _strings(each)
    elif isinstance(value, Sequence):
        for each in cast("Sequence[Any]", value):
            yield from _strings(each)


def _unguarded(text: str, guard: str) -> Rendered:
    parts = text.split(guard)
    places: list[int] = []
    length = 0
    for part in parts[:-1]:
        length += len(part)
        places.append(length)
    return Rendered("".join(parts), tuple(places))


class _Range:
    """`range` for a template: all its rounds together are bounded."""

    def __init__(self, left: int) -> None:
        self._left = left

    def __call__(self, *bounds: int) -> Iterable[int]:
        from jinja2.exceptions import SecurityError

        rounds = range(*bounds)
        self._left -= len(rounds)
        if self._left < 0:
            raise SecurityError(f"its ranges have more than {MOST_ROUNDS:,} rounds")
        return rounds


def _sandbox() -> ImmutableSandboxedEnvironment:
    from jinja2 import TemplateError, nodes
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}`: marks what the assistant says, for others; here its body is written as it is."""

        tags = {"generation"}  # noqa: RUF012  # the base class has it as an instance's attribute

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    class Sandbox(ImmutableSandboxedEnvironment):
        """Refuses aloud where jinja's own gives an undefined value that prints as nothing, and bounds products."""

        intercepted_binops = frozenset({"*", "**", "%"})

        def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
            return not (isinstance(obj, str) and attr in _PADDING) and super().is_safe_attribute(obj, attr, value)

        def wrap_str_format(self, value: Any) -> Any:
            wrapped = super().wrap_str_format(value)
            if wrapped is not None and _WIDTH.search(value.__self__) is not None:
                raise SecurityError("a format with a width of more than three digits")
            return wrapped

        def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
            raise SecurityError(f"{attribute!r} of a {type(obj).__name__}")

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            numbers = isinstance(left, int | float) and isinstance(right, int | float)
            small = numbers and (operator != "**" or (abs(left) <= 1e6 and abs(right) <= 16))
            if operator == "%" and isinstance(left, str):
                small = len(left) <= 1000 and not any(sign.isdigit() for sign in left) and "*" not in left
            if operator == "*" and not numbers:
                sized, times = cast("Any", (left, right) if isinstance(right, int) else (right, left))
                small = isinstance(times, int) and len(sized) * times <= LONGEST
            if not small:
                raise SecurityError(f"{type(left).__name__} {operator} {type(right).__name__}, of that size")
            return super().call_binop(context, operator, left, right)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    filters = cast("dict[str, Callable[..., Any]]", environment.filters)
    filters["tojson"] = _to_json
    for name in ("center", "format", "indent", "wordwrap"):
        filters[name] = _bounded(filters[name])
    names = cast("dict[str, Any]", environment.globals)
    names |= {"raise_exception": refuse, "strftime_now": _now}
    return environment


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
    """As JSON, without the escapes for HTML that jinja's own has."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose numbers stay small, those written into a format too."""

    def bounded(*arguments: Any, **named: Any) -> Any:
        from jinja2.exceptions import SecurityError

        numbers = [each for each in (*arguments[1:], *named.values()) if isinstance(each, int)]
        if function.__name__ == "do_format":
            numbers = [int(digits) for digits in re.findall(r"\d+", str(arguments[0]))]
        if any(abs(number) > 1000 for number in numbers):
            raise SecurityError("a width of more than 1,000")
        return function(*arguments, **named)

    return bounded
