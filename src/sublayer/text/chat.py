"""Conversations as text: the chat template that a model brings.

A template is a Jinja program from somebody else. It runs in a process of its own (`text/templates/`), where its time
and its memory are limited, the insides of Python objects are out of its reach, and every string knows which of its
characters a user wrote.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

from sublayer.errors import CheckpointError, InputError
from sublayer.text.templates.process import LONGEST, MEMORY, PROCESS, TOGETHER, TemplateProcess

# A turn: "role" ("system", "user", "assistant", "tool") and "content", and whatever else the template knows.
Message = Mapping[str, Any]
# A template's Jinja source, or several by name.
ChatSource = str | Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as text.

    Attributes:
        text: what the template wrote.
        quoted: the runs of characters that a message, a tool or another value brought, from (included) to (excluded):
            no special token is made of one of these.
        answers: the characters that the assistant has to say, from (included) to (excluded), end token included; only
            from `render_answers_of`.
    """

    text: str
    quoted: tuple[tuple[int, int], ...] = ()
    answers: tuple[tuple[int, int], ...] = ()


class ChatTemplate:
    """Jinja templates that make a text of a conversation, as Hugging Face's tokenizers define them.

    A template has `messages`, `add_generation_prompt`, `tools`, the special tokens by name (`bos_token`, ...),
    `raise_exception(message)`, `strftime_now(format)`, the filter `tojson`, loop controls and `{% generation %}`.
    """

    def __init__(
        self,
        source: ChatSource,
        special_tokens: Mapping[str, str] | None = None,
        markers: Collection[str] = (),
        *,
        process: TemplateProcess = PROCESS,
    ) -> None:
        """Compile `source`.

        Args:
            source: a template; or several by name, of which "tool_use" is taken where tools are given, "default" else.
            special_tokens: the tokens that the template can name, such as `{"eos_token": "</s>"}`.
            markers: all spellings of special tokens, by which the end of an answer is known.
            process: where templates run.

        Raises:
            CheckpointError: `source` is not a template.
        """
        self.sources = {"default": source} if isinstance(source, str) else dict(source)
        self._process = process
        self._special_tokens = dict(special_tokens or {})
        self._markers = tuple({*markers, *self._special_tokens.values()} - {""})
        self._variables = {name: self._variables_of(name) for name in self.sources}

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
            tools: JSON schemas of functions that the model may call.
            more: further values for the template, such as Qwen3's `enable_thinking`.

        Raises:
            InputError: a message has no role, tools are given and the template knows none, or the template refuses the
                conversation, reaches for what it must not have, or takes too much time or memory.
        """
        name = self._chosen(tools)
        request = self._common(name, tools, more) | _conversation(messages, prompted=add_generation_prompt)
        answer = self._checked(name, self._process.ask(request))
        return Rendered(answer["text"], _pairs(answer["user"]))

    def render_answers_of(self, conversations: Iterable[Sequence[Message]]) -> Iterator[Rendered]:
        """Whole conversations as text, and where in each the assistant's answers stand, end tokens included.

        Each answer is found by rendering the conversation up to it, and with it: what came before must be rendered the
        same whatever follows. What the template puts behind an end token, such as a line feed, is not the assistant's.
        Many at once are sooner made than one by one.

        Raises:
            InputError: when the conversation at fault is reached: as in `render`; nobody answers; or a turn is rendered
                in another way once more turns follow, as by templates that drop the thoughts of earlier answers.
        """
        name = self._chosen(None)
        common = self._common(name, None, {})
        waiting = iter(conversations)
        while some := list(islice(waiting, TOGETHER)):
            requests: list[dict[str, Any]] = []
            fault: InputError | None = None
            for messages in some:
                cuts = [cut for place in _answers(messages) for cut in ((place, True), (place + 1, False))]
                try:
                    requests.append(_conversation(messages, prompted=False, cuts=cuts))
                except InputError as error:
                    fault = error
                    break
            answers = self._process.ask_each(common, requests)
            for messages, answer in zip(some, answers, strict=False):
                yield self._with_answers(_answers(messages), self._checked(name, answer))
            if fault is not None:  # those before it have been given
                raise fault

    def _with_answers(self, places: Sequence[int], answer: Mapping[str, Any]) -> Rendered:
        """What was rendered, with the answers at these turns."""
        text: str = answer["text"]
        lengths = [length if agrees else None for length, agrees in answer["cuts"]]
        found: list[tuple[int, int]] = []
        for place, before, after in zip(places, lengths[::2], lengths[1::2], strict=True):
            if before is None or after is None or before > after:
                raise InputError(
                    f"the chat template renders message {place} in another way when more follows, "
                    "so that there is no telling which characters are the answer",
                    "Cut the conversation after this answer, or train on it as plain text.",
                )
            found.append((before, self._said(text[:after], before)))
        if not found:
            raise InputError("nobody answers in this conversation", 'Give a message with the role "assistant".')
        return Rendered(text, _pairs(answer["user"]), tuple(found))

    def _said(self, text: str, start: int) -> int:
        """The end of the answer that begins at `start`: behind its end token, not behind the white space after that."""
        kept = text.rstrip()
        return max(start, len(kept)) if kept.endswith(self._markers) else len(text)

    def _chosen(self, tools: Sequence[Mapping[str, Any]] | None) -> str:
        """The name of the template for a conversation with these tools."""
        wanted = "default" if tools is None else "tool_use"
        name = wanted if wanted in self.sources else "default"
        if name not in self.sources:
            raise InputError(
                f"no chat template is for a conversation without tools (there are: {', '.join(sorted(self.sources))})",
                "Give tools, or name one of them 'default'.",
            )
        if tools and "tools" not in self._variables[name]:
            raise InputError(
                f"{_named(name)} knows no tools, and {len(tools)} are given",
                "Use a model that was trained to call tools, or describe them in a message.",
            )
        return name

    def _common(self, name: str, tools: Sequence[Mapping[str, Any]] | None, more: Mapping[str, Any]) -> dict[str, Any]:
        """What the process is told about all conversations of a call."""
        return {
            "source": self.sources[name],
            "tools": None if tools is None else _plain(tools),
            "tokens": self._special_tokens,
            "values": _plain(more),
        }

    def _variables_of(self, name: str) -> frozenset[str]:
        """The names that a template asks for."""
        answer = self._process.ask({"source": self.sources[name], "messages": None})
        return frozenset(self._checked(name, answer)["variables"])

    def _checked(self, name: str, answer: dict[str, Any]) -> dict[str, Any]:
        """`answer`, unless it is an error.

        Raises:
            CheckpointError, InputError: it is one.
        """
        if "error" not in answer:
            return answer
        template, kind, message = _named(name), answer["error"], answer["message"]
        if kind == "damaged":
            raise CheckpointError(f"{template} is damaged: {message}", "Copy the model's files anew.")
        what, remedy = _FAULTS.get(kind, _FAILS)
        raise InputError(f"{template} {what.format(message)}", remedy)


_FAULTS: Mapping[str, tuple[str, str]] = {
    "reaches": ("reaches for what it must not have: {}", "Do not use this model's template."),
    "refuses": ("refuses this conversation: {}", ""),
    "long": (f"wrote more than {LONGEST:,} characters", "It may never end: do not use it."),
    "memory": (
        f"needs more than {MEMORY // 1024**2} MiB of memory for this conversation",
        "Shorten the conversation, or do not use this model's template.",
    ),
}
"""What can be wrong with a template, with the place of its message, and the remedy."""
_FAILS = ("fails on this conversation: {}", "Check that every message has what the template asks for.")


def _named(name: str) -> str:
    return "the chat template" if name == "default" else f"the chat template {name!r}"


def _pairs(spans: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    return tuple((begin, end) for begin, end in spans)


def _answers(messages: Sequence[Message]) -> list[int]:
    """The turns in which the assistant speaks."""
    return [place for place, message in enumerate(messages) if message.get("role") == "assistant"]


def _conversation(
    messages: Sequence[Message], *, prompted: bool, cuts: Sequence[tuple[int, bool]] = ()
) -> dict[str, Any]:
    """What the process is told about a conversation.

    cuts: how many turns, and whether an answer is asked for: the process says how long what is rendered of these is,
        and whether the whole begins with that.
    """
    turns = [_turn(place, message) for place, message in enumerate(messages)]
    return {"messages": turns, "prompted": prompted, "cuts": cuts}


def _turn(place: int, message: Message) -> dict[str, Any]:
    """`message` without what is None (templates ask whether a key is there), if it is one."""
    role = message.get("role")
    if not isinstance(role, str) or not role.replace("_", "").replace("-", "").isalnum():
        raise InputError(
            f"message {place} has the role {role!r}", 'Say who speaks: "system", "user", "assistant" or "tool".'
        )
    return _plain({key: value for key, value in message.items() if value is not None})


def _plain(value: Any) -> Any:
    """`value` with plain tables and lists for whatever is one; the process takes only those."""
    try:
        return _copied(value)
    except RecursionError:
        raise InputError("the conversation is nested too deep", "Give it as a template can read it.") from None


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(each) for key, each in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return [_copied(each) for each in cast("Sequence[Any]", value)]
    return value
