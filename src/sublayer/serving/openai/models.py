"""`/v1/models`: which there are; `/tokenize` and `/detokenize`: what their tokens are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from sublayer.generation.generator import Generator
from sublayer.generation.translator import Translator
from sublayer.reading import Classifier, Embedder, Filler, Tagger
from sublayer.serving.bodies import table_of
from sublayer.serving.openai.chat import ChatMessage, Tool
from sublayer.serving.refusals import Refusal
from sublayer.serving.replies import LIMITS, Asked, TokenIds, Words, json_reply, read_as
from sublayer.serving.served import ServedModel
from sublayer.serving.server import Server
from sublayer.serving.spelling import spelled

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

EVERY = (Translator, Generator, Classifier, Tagger, Embedder, Filler)


class TokenizeRequest(Asked):
    """prompt: a text; or messages, as the chat template writes them. add_special_tokens: put around a text what the
    model was trained to see there. return_token_strs: also spell the tokens."""

    model: Annotated[str, Field(max_length=300)] | None = None
    prompt: Words | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=LIMITS.messages)] | None = None
    tools: Annotated[list[Tool], Field(max_length=LIMITS.tools)] | None = None
    add_special_tokens: bool = True
    return_token_strs: bool = False


class DetokenizeRequest(Asked):
    model: Annotated[str, Field(max_length=300)] | None = None
    tokens: TokenIds


async def models(server: Server, request: Request) -> Response:
    return json_reply({"object": "list", "data": [_described(model) for model in server.models]})


async def model(server: Server, request: Request) -> Response:
    return json_reply(_described(server.models.named(request.path_params["name"], *EVERY)))


async def tokenize(server: Server, request: Request) -> Response:
    asked = read_as(TokenizeRequest, await table_of(request, server.limits))
    if (asked.prompt is None) == (asked.messages is None):
        raise Refusal("a text is asked for by prompt or by messages", "Give one of them.", field="prompt")
    served = server.models.named(asked.model, *EVERY)
    ids = await server.in_thread(_ids, served, asked)
    reply: dict[str, Any] = {"count": len(ids), "max_model_len": served.loaded.model.config.max_length, "tokens": ids}
    if asked.return_token_strs:
        reply["token_strs"] = [spelled(served.loaded.tokenizer, token) for token in ids]
    return json_reply(reply)


async def detokenize(server: Server, request: Request) -> Response:
    asked = read_as(DetokenizeRequest, await table_of(request, server.limits))
    served = server.models.named(asked.model, *EVERY)
    size = served.loaded.model.config.vocab_size
    unknown = next((token for token in asked.tokens if token >= size), None)
    if unknown is not None:
        raise Refusal(f"there is no token {unknown}", f"The vocabulary is 0 to {size - 1}.", field="tokens")
    tokenizer = served.loaded.tokenizer
    text = await server.in_thread(lambda: tokenizer.decode([asked.tokens], skip_special=False)[0])
    return json_reply({"prompt": text})


def _ids(served: ServedModel, asked: TokenizeRequest) -> list[int]:
    tokenizer = served.loaded.tokenizer
    if asked.messages is not None:
        tools = [tool.model_dump(exclude_none=True) for tool in asked.tools] if asked.tools else None
        return tokenizer.encode_chat([message.plain() for message in asked.messages], tools=tools)
    texts = [asked.prompt or ""]
    return (tokenizer.encode_with_special_tokens(texts) if asked.add_special_tokens else tokenizer.encode(texts))[0]


def _described(served: ServedModel) -> dict[str, Any]:
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "sublayer",
        "max_model_len": served.loaded.model.config.max_length,
        "task": served.task,
    }
