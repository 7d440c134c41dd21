"""`/classify`, `/tag`, `/fill`: what encoders say of texts, those of many requests read together."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field

from sublayer.reading import Classifier, Filler, Tagger
from sublayer.serving.collector import Collector
from sublayer.serving.replies import LIMITS, Asked, Words, json_reply, listed, read_as, table_of, unless_gone
from sublayer.serving.server import Server

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

Texts = Annotated[list[Words], Field(min_length=1, max_length=LIMITS.texts)]
Pair = Annotated[list[Words], Field(min_length=2, max_length=2)]
ModelName = Annotated[str, Field(max_length=300)]


class ClassifyRequest(Asked):
    """input: texts, or pairs of texts for a model that compares two."""

    model: ModelName | None = None
    input: Words | Texts | Annotated[list[Pair], Field(min_length=1, max_length=LIMITS.texts)]


class TagRequest(Asked):
    """input: sentences, cut at spaces; or sentences in words."""

    model: ModelName | None = None
    input: Words | Texts | Annotated[list[Texts], Field(min_length=1, max_length=LIMITS.texts)]


class FillRequest(Asked):
    """input: texts with [MASK] in them. best: tokens for each mask."""

    model: ModelName | None = None
    input: Words | Texts
    best: Annotated[int, Field(ge=1, le=100)] = 5


async def classify(server: Server, request: Request) -> Response:
    asked = read_as(ClassifyRequest, await table_of(request, server.limits))
    served = server.models.named(asked.model, Classifier)
    classifier, given = served.loaded, listed(asked.input)
    assert isinstance(classifier, Classifier)
    texts = [tuple(cast("list[str]", text)) if isinstance(text, list) else text for text in given]
    found = await _asked(server, request, served.runs, texts, "classify", classifier.classify)
    data = [
        {"index": n, "label": one.label, "probability": one.probability, "probabilities": one.probabilities}
        for n, one in enumerate(found)
    ]
    return json_reply({"object": "list", "model": served.name, "data": data})


async def tag(server: Server, request: Request) -> Response:
    asked = read_as(TagRequest, await table_of(request, server.limits))
    served = server.models.named(asked.model, Tagger)
    tagger = served.loaded
    assert isinstance(tagger, Tagger)
    found = await _asked(server, request, served.runs, listed(asked.input), "tag", tagger.tag)
    data = [
        {"index": n, "words": one.words, "tags": one.tags, "probabilities": one.probabilities}
        for n, one in enumerate(found)
    ]
    return json_reply({"object": "list", "model": served.name, "data": data})


async def fill(server: Server, request: Request) -> Response:
    asked = read_as(FillRequest, await table_of(request, server.limits))
    served = server.models.named(asked.model, Filler)
    filler = served.loaded
    assert isinstance(filler, Filler)
    kind, read = ("fill", asked.best), partial(filler.fill, best=asked.best)
    found = await _asked(server, request, served.runs, listed(asked.input), kind, read)
    data = [
        {
            "index": n,
            "masks": [
                [{"token": one.token, "probability": one.probability, "text": one.text} for one in choices]
                for choices in masks
            ],
        }
        for n, masks in enumerate(found)
    ]
    return json_reply({"object": "list", "model": served.name, "data": data})


async def _asked(server: Server, request: Request, runs: Any, texts: list[Any], kind: Any, read: Any) -> Any:
    assert isinstance(runs, Collector)
    return await unless_gone(request, runs.ask(texts, kind, read, server.limits.seconds))
