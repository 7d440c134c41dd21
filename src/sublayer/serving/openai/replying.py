"""What completions and chat have in common: a request becomes texts of a model, whole at the end or as they grow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from sublayer.generation.generator import Generator
from sublayer.generation.loop import Chosen
from sublayer.serving.openai.forms import error_of, heading
from sublayer.serving.replies import json_reply, watching
from sublayer.serving.served import ServedModel
from sublayer.serving.server import Server
from sublayer.serving.streams import streamed
from sublayer.serving.writing import Answer, Options, Writing

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

O = TypeVar("O", bound=Options)  # noqa: E741


class Reply(ABC, Generic[O]):
    """Answers in OpenAI's form, one choice for each."""

    PREFIX: ClassVar[str]
    WHOLE: ClassVar[str]
    GROWING: ClassVar[str]

    def __init__(self, writing: Writing, asked: O) -> None:
        self.writing, self.asked = writing, asked
        self.tokenizer = writing.generator.tokenizer
        self._head = heading(self.PREFIX, self.GROWING if asked.stream else self.WHOLE, writing.served.name)

    @abstractmethod
    def choice(self, answer: Answer) -> dict[str, Any]:
        """An answer as it is at its end."""

    @abstractmethod
    def growth(self, answer: Answer, chosen: Chosen | None, *, first: bool) -> Iterator[dict[str, Any]]:
        """What is new of an answer: its token, or all of it (None)."""

    def whole(self) -> dict[str, Any]:
        choices = [self.choice(answer) for answer in self.writing.answers]
        return {**self._head, "choices": choices, "usage": self.writing.usage}

    async def parts(self) -> AsyncIterator[dict[str, Any]]:
        options = self.asked.stream_options
        counted = {"usage": None} if options is not None and options.include_usage else {}
        begun: set[int] = set()
        async for answer, chosen in self.writing.growing():
            first = answer.index not in begun
            begun.add(answer.index)
            for choice in self.growth(answer, chosen, first=first):
                yield {**self._head, "choices": [choice], **counted}
        if counted:
            yield {**self._head, "choices": [], "usage": self.writing.usage}


async def answered(
    server: Server,
    request: Request,
    asked: O,
    write: Callable[[Server, ServedModel, O], Writing],
    form: Callable[[Writing, O], Reply[O]],
) -> Response:
    """What the model says, in a form.

    Args:
        write: makes jobs of what is asked; beside the event loop.
    """
    served = server.models.named(asked.model, Generator)
    writing = await server.in_thread(write, server, served, asked)
    reply = form(writing, asked)
    async with watching(request, writing.ticket.give_up):
        if asked.stream:
            return await streamed(reply.parts(), error_of, writing.ticket.give_up)
        await writing.finish()
    return json_reply(reply.whole())
