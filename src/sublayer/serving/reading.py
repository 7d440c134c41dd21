"""`/classify`, `/tag`, `/fill`: what encoders say of texts, those of many requests read together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from pydantic import Field

from sublayer.reading import Classifier, Filler, Tagger
from sublayer.serving.bodies import table_of
from sublayer.serving.collector import Collector
from sublayer.serving.replies import LIMITS, Asked, Words, json_reply, listed, read_as, unless_gone
from sublayer.serving.server import Server

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

Reader = TypeVar("Reader", Classifier, Tagger, Filler)
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

    def read(classifier: Classifier, several: Sequence[Any]) -> list[dict[str, Any]]:
        texts = [tuple(text) if isinstance(text, list) else text for text in cast("Sequence[str | list[str]]", several)]
        found = classifier.classify(cast("list[str | tuple[str, str]]", texts))
        return [
            {"label": one.label, "probability": one.probability, "probabilities": one.probabilities} for one in found
        ]

    return await _answered(server, request, asked, Classifier, "classify", read)


async def tag(server: Server, request: Request) -> Response:
    asked = read_as(TagRequest, await table_of(request, server.limits))

    def read(tagger: Tagger, several: Sequence[Any]) -> list[dict[str, Any]]:
        found = tagger.tag(several)
        return [{"words": one.words, "tags": one.tags, "probabilities": one.probabilities} for one in found]

    return await _answered(server, request, asked, Tagger, "tag", read)


async def fill(server: Server, request: Request) -> Response:
    asked = read_as(FillRequest, await table_of(request, server.limits))

    def read(filler: Filler, several: Sequence[Any]) -> list[dict[str, Any]]:
        found = filler.fill(several, best=asked.best)
        return [
            {
                "masks": [
                    [{"token": one.token, "probability": one.probability, "text": one.text} for one in choices]
                    for choices in masks
                ]
            }
            for masks in found
        ]

    return await _answered(server, request, asked, Filler, ("fill", asked.best), read)


async def _answered(
    server: Server,
    request: Request,
    asked: ClassifyRequest | TagRequest | FillRequest,
    kind: type[Reader],
    together: Hashable,
    read: Callable[[Reader, Sequence[Any]], list[dict[str, Any]]],
) -> Response:
    """What a model of this kind reads in the texts, in the form of a list.

    Args:
        together: texts of several requests are read together where it is the same.
    """
    served = server.models.named(asked.model, kind)
    assert isinstance(served.loaded, kind)
    assert isinstance(served.runs, Collector)
    asking = served.runs.ask(listed(asked.input), together, partial(read, served.loaded), server.limits.seconds)
    found = await unless_gone(request, asking)
    data = [{"index": n, **one} for n, one in enumerate(found)]
    return json_reply({"object": "list", "model": served.name, "data": data})
