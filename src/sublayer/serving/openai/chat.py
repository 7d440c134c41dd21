"""`/v1/chat/completions`: the next turn of a conversation, by the model's own chat template."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import Field

from sublayer.generation.generator import Generator
from sublayer.generation.loop import Chosen
from sublayer.serving.bodies import table_of
from sublayer.serving.openai.forms import chat_logprobs
from sublayer.serving.openai.replying import Reply, answered
from sublayer.serving.refusals import Refusal
from sublayer.serving.replies import LIMITS, Asked, Words, read_as
from sublayer.serving.served import ServedModel
from sublayer.serving.server import Server
from sublayer.serving.writing import Answer, Options, Writing
from sublayer.untrusted import UntrustedError, parse_json

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

CALL = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)
"""How models write that they call a tool: Hermes', Qwen's and SmolLM's way."""
Name = Annotated[str, Field(max_length=300)]


class TextPart(Asked):
    """A part of a message. Pictures and sounds are not for these models."""

    type: Literal["text"]
    text: Words


class CalledFunction(Asked):
    name: Name
    arguments: Words


class ToolCall(Asked):
    id: Name | None = None
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(Asked):
    """One turn."""

    role: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
    content: Words | Annotated[list[TextPart], Field(max_length=LIMITS.texts)] | None = None
    name: Name | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=LIMITS.tools)] | None = None
    tool_call_id: Name | None = None
    refusal: Words | None = None

    def plain(self) -> dict[str, Any]:
        """As a template reads it: content as one text, arguments of tools as tables."""
        content = self.content
        turn: dict[str, Any] = {
            "role": self.role,
            "content": content if content is None or isinstance(content, str) else "\n".join(p.text for p in content),
        }
        for field in ("name", "tool_call_id"):
            if getattr(self, field) is not None:
                turn[field] = getattr(self, field)
        if self.tool_calls:
            turn["tool_calls"] = [
                {**call.model_dump(exclude_none=True), "function": _called(call.function)} for call in self.tool_calls
            ]
            turn["content"] = turn["content"] or ""
        return turn


class ToolFunction(Asked):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
    description: Words | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Asked):
    type: Literal["function"]
    function: ToolFunction


class ResponseFormat(Asked):
    """Text alone is supported; the others are refused by name."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None


class ChatRequest(Options):
    """OpenAI's fields. tools: for models whose template knows them. parallel_tool_calls, reasoning_effort: taken, and
    nothing is done with them."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=LIMITS.messages)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**24)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=LIMITS.logprobs)] | None = None
    tools: Annotated[list[Tool], Field(max_length=LIMITS.tools)] | None = None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Annotated[str, Field(max_length=40)] | None = None


async def chat(server: Server, request: Request) -> Response:
    asked = read_as(ChatRequest, await table_of(request, server.limits))
    _require_supported(asked)
    return await answered(server, request, asked, _writing, _Reply)


def _require_supported(asked: ChatRequest) -> None:
    if asked.response_format is not None and asked.response_format.type != "text":
        kind = asked.response_format.type
        raise Refusal(
            f"response_format of type {kind!r} is not supported", "Ask for it in a message.", field="response_format"
        )
    if asked.tool_choice not in (None, "none", "auto"):
        raise Refusal(
            "a tool_choice other than 'auto' and 'none' is not supported",
            "The model alone decides whether it calls a tool.",
            field="tool_choice",
        )
    if asked.top_logprobs is not None and not asked.logprobs:
        raise Refusal("top_logprobs needs logprobs", "Set logprobs to true.", field="top_logprobs")
    if asked.max_tokens == 0:
        raise Refusal("max_tokens = 0", "Ask for one token or more.", field="max_tokens")


def _writing(server: Server, served: ServedModel, asked: ChatRequest) -> Writing:
    generator = cast("Generator[Any]", served.loaded)
    tools = None
    if asked.tools and asked.tool_choice != "none":
        tools = [tool.model_dump(exclude_none=True) for tool in asked.tools]
    ids = generator.tokenizer.encode_chat([message.plain() for message in asked.messages], tools=tools)
    if not ids:
        raise Refusal("the chat template makes nothing of these messages", "Write something in them.", field="messages")
    return Writing(
        served,
        [ids],
        asked,
        server.limits.seconds,
        max_tokens=asked.max_completion_tokens or asked.max_tokens,
        best=(asked.top_logprobs or 0) if asked.logprobs else None,
    )


class _Reply(Reply[ChatRequest]):
    PREFIX, WHOLE, GROWING = "chatcmpl", "chat.completion", "chat.completion.chunk"

    @property
    def _calls(self) -> bool:
        """Whether tools may be called."""
        return bool(self.asked.tools) and self.asked.tool_choice != "none"

    def choice(self, answer: Answer) -> dict[str, Any]:
        said = {"role": "assistant", **self._said(answer)}
        return {
            "index": answer.index,
            "message": {**said, "refusal": None},
            "logprobs": chat_logprobs(self.tokenizer, answer.said) if self.asked.logprobs else None,
            "finish_reason": "tool_calls" if said.get("tool_calls") else answer.finish,
        }

    def growth(self, answer: Answer, chosen: Chosen | None, *, first: bool) -> Iterator[dict[str, Any]]:
        if first:
            yield self._delta(answer, {"role": "assistant", "content": ""})
        # Whether a tool is called shows at the end: until then it is kept back.
        delta: dict[str, Any] = {}
        if not self._calls:
            text = answer.piece()
            delta = {"content": text} if text else {}
        elif answer.finish is not None:
            delta = self._said(answer)
            for place, call in enumerate(delta.get("tool_calls", [])):
                call["index"] = place
        logprobs = None
        if self.asked.logprobs:
            new = answer.said if chosen is None else [chosen] if chosen.ending != "end" else []
            logprobs = chat_logprobs(self.tokenizer, new) if new else None
        if delta or logprobs:
            yield self._delta(answer, delta, logprobs=logprobs)
        if answer.finish is not None:
            yield self._delta(answer, {}, finish="tool_calls" if delta.get("tool_calls") else answer.finish)

    @staticmethod
    def _delta(
        answer: Answer, delta: dict[str, Any], *, logprobs: Any = None, finish: str | None = None
    ) -> dict[str, Any]:
        return {"index": answer.index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}

    def _said(self, answer: Answer) -> dict[str, Any]:
        """What was said, and the tools that it calls."""
        text = answer.text.text
        calls = [call for found in CALL.finditer(text) if (call := _call(found[1])) is not None] if self._calls else []
        if not calls:
            return {"content": text}
        return {"content": CALL.sub("", text).strip() or None, "tool_calls": calls}


def _call(written: str) -> dict[str, Any] | None:
    """A call as OpenAI's clients read it; None where what was written is none."""
    try:
        value: Any = parse_json(written)
    except UntrustedError:
        return None
    if not isinstance(value, dict) or not isinstance(cast("dict[str, Any]", value).get("name"), str):
        return None
    table = cast("dict[str, Any]", value)
    arguments = json.dumps(table.get("arguments", table.get("parameters", {})), ensure_ascii=False)
    function = {"name": table["name"], "arguments": arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


def _called(function: CalledFunction) -> dict[str, Any]:
    """A function as templates read it: its arguments are a table."""
    try:
        arguments: Any = parse_json(function.arguments)
    except UntrustedError:
        arguments = function.arguments
    return {"name": function.name, "arguments": arguments}
