"""`/v1/completions`: texts that go on from prompts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field

from sublayer.generation.generator import Generator
from sublayer.generation.loop import Chosen
from sublayer.serving.bodies import table_of
from sublayer.serving.openai.forms import legacy_logprobs
from sublayer.serving.openai.replying import Reply, answered
from sublayer.serving.refusals import Refusal
from sublayer.serving.replies import LIMITS, TokenIds, Words, listed, read_as
from sublayer.serving.served import ServedModel
from sublayer.serving.server import Server
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
    return await answered(server, request, asked, _writing, _Reply)


def _writing(server: Server, served: ServedModel, asked: CompletionRequest) -> Writing:
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


class _Reply(Reply[CompletionRequest]):
    PREFIX, WHOLE, GROWING = "cmpl", "text_completion", "text_completion"

    def choice(self, answer: Answer) -> dict[str, Any]:
        return self._choice(answer, self._before(answer) + answer.text.text, self._all_of(answer))

    def growth(self, answer: Answer, chosen: Chosen | None, *, first: bool) -> Iterator[dict[str, Any]]:
        text = answer.piece()
        logprobs: dict[str, Any] | None
        if first:
            text = self._before(answer) + text
            logprobs = self._all_of(answer)
        else:
            logprobs = self._some_of(answer, [] if chosen is None else [chosen])
        if text or logprobs or answer.finish:
            yield self._choice(answer, text, logprobs)

    def _before(self, answer: Answer) -> str:
        return self.tokenizer.decode([answer.prompt])[0] if self.asked.echo else ""

    def _all_of(self, answer: Answer) -> dict[str, Any] | None:
        """Log-probabilities of the answer so far, and of the prompt where it is told too."""
        if self.asked.logprobs is None:
            return None
        if not self.asked.echo:
            return legacy_logprobs(self.tokenizer, answer.said, first=None)
        return legacy_logprobs(self.tokenizer, [*answer.scores, *answer.said], first=answer.prompt[0])

    def _some_of(self, answer: Answer, chosen: list[Chosen]) -> dict[str, Any] | None:
        if self.asked.logprobs is None:
            return None
        said = [one for one in chosen if one.ending != "end"]
        return legacy_logprobs(self.tokenizer, said, first=None, at=len(answer.text.text))

    def _choice(self, answer: Answer, text: str, logprobs: dict[str, Any] | None) -> dict[str, Any]:
        return {"index": answer.index, "text": text, "logprobs": logprobs, "finish_reason": answer.finish}
