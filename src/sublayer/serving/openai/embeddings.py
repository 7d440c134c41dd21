"""`/v1/embeddings`: a vector for each text."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import Field
from torch import Tensor

from sublayer.reading import Embedder
from sublayer.serving.bodies import table_of
from sublayer.serving.collector import Collector
from sublayer.serving.refusals import Refusal
from sublayer.serving.replies import LIMITS, Asked, TokenIds, Words, json_reply, listed, read_as, unless_gone
from sublayer.serving.server import Server

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


class EmbeddingRequest(Asked):
    """OpenAI's fields. input: texts, or token ids with the special ones around them."""

    model: Annotated[str, Field(max_length=300)] | None = None
    input: (
        Words
        | Annotated[TokenIds, Field(min_length=1)]
        | Annotated[list[Words], Field(min_length=1, max_length=LIMITS.texts)]
        | Annotated[list[Annotated[TokenIds, Field(min_length=1)]], Field(min_length=1, max_length=LIMITS.texts)]
    )
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=2**24)] | None = None
    user: Annotated[str, Field(max_length=1000)] | None = None


async def embeddings(server: Server, request: Request) -> Response:
    asked = read_as(EmbeddingRequest, await table_of(request, server.limits))
    served = server.models.named(asked.model, Embedder)
    embedder, runs = served.loaded, served.runs
    assert isinstance(embedder, Embedder)
    assert isinstance(runs, Collector)
    width = embedder.model.config.dim
    if asked.dimensions not in (None, width):
        raise Refusal(f"dimensions = {asked.dimensions}", f"This model's vectors have {width}.", field="dimensions")
    texts = listed(asked.input)
    encoded = await server.in_thread(embedder.encode, texts)
    asking = runs.ask(texts, "embed", lambda several: list(embedder.embed(several)), server.limits.seconds)
    vectors: Any = await unless_gone(request, asking)
    tokens = sum(map(len, encoded))
    return json_reply(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": place, "embedding": _written(vector, asked.encoding_format)}
                for place, vector in enumerate(vectors)
            ],
            "model": served.name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _written(vector: Tensor, form: str | None) -> Any:
    if form == "base64":
        return base64.b64encode(vector.float().contiguous().numpy().astype("<f4").tobytes()).decode("ascii")
    return cast("list[float]", vector.tolist())
