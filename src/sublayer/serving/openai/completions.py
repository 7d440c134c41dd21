"""`/v1/completions`: texts that go on from prompts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field

from sublayer.generation.generator import Generator
from sublayer.generation.loop import Chosen
from sublayer.serving.openai.forms import error_of, heading, legacy_logprobs
from sublayer.serving.refusals import Refusal
from sublayer.serving.replies import LIMITS, TokenIds, Words, json_reply, listed, read_as, table_of, watching
from sublayer.serving.server import Server
from sublayer.serving.streams import streamed
from sublayer.serving.writing import Answer, Options, Writing

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

USUAL = 16
"""New tokens where nothing else is said, as OpenAI has it."""


class CompletionRequest(Options):
    """OpenAI's fields. prompt: a text or its token ids, or a list of either. echo: the text begins with the prompt.
    logprobs: alternatives to tell for each token; with echo also to the prompt's."""

    prompt: (
        Words
        | TokenIds
        | Annotated[list[Words], Field(min_length=1, max_length=LIMITS.texts)]
        | Annotated[list[TokenIds], Field(min_length=1, max_length=LIMITS.texts)]
    )
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=LIMITS.logprobs)] | None = None
    best_of: Annotated[int, Field(ge=1, le=LIMITS.n)] | None = None
    suffix: str | None = None


async def completions(server: Server, request: Request) -> Response:
    asked = read_as(CompletionRequest, await table_of(request, server.limits))
    if asked.suffix:
        raise Refusal("suffix is not supported", "Leave it out: the models here go on from a text.", field="suffix")
    if asked.best_of is not None and asked.best_of != asked.answers:
        raise Refusal("best_of is not supported beside n", "Ask for n answers, or for num_beams.", field="best_of")
    served = server.models.named(asked.model, Generator)
    writing = await server.in_thread(_writing, server, served, asked)
    reply = _Reply(writing, asked)
    async with watching(request, writing.ticket.give_up):
        if asked.stream:
            return await streamed(reply.parts(), error_of, writing.ticket.give_up)
        await writing.finish()
    return json_reply(reply.whole())


def _writing(server: Server, served: Any, asked: CompletionRequest) -> Writing:
    generator = cast("Generator[Any]", served.loaded)
    prompts = [generator.encode(prompt, number) for number, prompt in enumerate(listed(asked.prompt), start=1)]
    return Writing(
        served,
        prompts,
        asked,
        server.limits.seconds,
        max_tokens=asked.max_tokens,
        usual=USUAL,
        best=asked.logprobs,
        scored=bool(asked.echo) and asked.logprobs is not None,
    )


class _Reply:
    """Answers in OpenAI's form."""

    def __init__(self, writing: Writing, asked: CompletionRequest) -> None:
        self._writing, self._asked = writing, asked
        self._tokenizer = writing.generator.tokenizer
        self._head = heading("cmpl", "text_completion", writing.served.name)

    def whole(self) -> dict[str, Any]:
        choices = [
            self._choice(answer, self._before(answer) + answer.text.text, self._all_of(answer))
            for answer in self._writing.answers
        ]
        return {**self._head, "choices": choices, "usage": self._writing.usage}

    async def parts(self) -> AsyncIterator[dict[str, Any]]:
        begun: set[int] = set()
        options = self._asked.stream_options
        counted = {"usage": None} if options is not None and options.include_usage else {}
        async for answer, chosen in self._writing.growing():
            text = answer.piece()
            logprobs: dict[str, Any] | None
            if answer.index not in begun:
                begun.add(answer.index)
                text = self._before(answer) + text
                logprobs = self._all_of(answer)
            else:
                logprobs = self._some_of(answer, [] if chosen is None else [chosen])
            if text or logprobs or answer.finish:
                yield {**self._head, "choices": [self._choice(answer, text, logprobs)], **counted}
        if counted:
            yield {**self._head, "choices": [], "usage": self._writing.usage}

    def _before(self, answer: Answer) -> str:
        return self._tokenizer.decode([answer.prompt])[0] if self._asked.echo else ""

    def _all_of(self, answer: Answer) -> dict[str, Any] | None:
        """Log-probabilities of the answer so far, and of the prompt where it is told too."""
        if self._asked.logprobs is None:
            return None
        if not self._asked.echo:
            return legacy_logprobs(self._tokenizer, answer.said, first=None)
        return legacy_logprobs(self._tokenizer, [*answer.scores, *answer.said], first=answer.prompt[0])

    def _some_of(self, answer: Answer, chosen: list[Chosen]) -> dict[str, Any] | None:
        if self._asked.logprobs is None:
            return None
        said = [one for one in chosen if one.ending != "end"]
        return legacy_logprobs(self._tokenizer, said, first=None, at=len(answer.text.text))

    def _choice(self, answer: Answer, text: str, logprobs: dict[str, Any] | None) -> dict[str, Any]:
        return {"index": answer.index, "text": text, "logprobs": logprobs, "finish_reason": answer.finish}
