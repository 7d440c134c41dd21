"""What requests say, by their types, and replies in JSON, the same for all APIs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sublayer.errors import nearest
from sublayer.serving.limits import RequestLimits
from sublayer.serving.refusals import Gone, Refusal
from sublayer.untrusted import to_json

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

LIMITS = RequestLimits()
Words = Annotated[str, Field(max_length=LIMITS.characters)]
TokenIds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=LIMITS.characters)]
Model = TypeVar("Model", bound="Asked")
R = TypeVar("R")


class Asked(BaseModel):
    """The base of what a request says: typed strictly, unknown fields refused by name."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


def json_reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    from starlette.responses import Response

    held = to_json(value, separators=(",", ":")).encode("utf-8")
    return Response(held, status, headers, media_type="application/json")


def read_as(kind: type[Model], table: dict[str, Any]) -> Model:
    """What a request says, with its types.

    Raises:
        Refusal: names the first field that is wrong, or not known.
    """
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        # Of a field that may be of several types, the fault that lies deepest: the other types do not fit at all.
        faults = error.errors(include_url=False, include_input=False)
        fault = max(faults, key=lambda one: (len(_path(one["loc"])), one["type"] not in _OTHER_TYPE))
        path = _path(fault["loc"])
        field = ".".join(path[:6])[:120]
        if fault["type"] == "extra_forbidden":
            remedy = nearest(path[-1][:80], kind.model_fields) if len(path) == 1 else ""
            raise Refusal(f"{field} is not known here", remedy, field=field) from None
        raise Refusal(f"{field}: {fault['msg']}"[:400], field=field) from None


_OTHER_TYPE = (
    "string_type",
    "list_type",
    "int_type",
    "dict_type",
    "model_type",
    "literal_error",
    "dict_attributes_type",
)
_NAME = re.compile(r"\w[\w .$-]*")
_BRANCH = frozenset({"str", "int", "float", "constrained-str", "constrained-int", "constrained-float"})


def _path(location: tuple[int | str, ...]) -> list[str]:
    """Where a fault lies, without pydantic's names of the types that a field may have."""
    return [str(part) for part in location if isinstance(part, int) or (_NAME.fullmatch(part) and part not in _BRANCH)]


@asynccontextmanager
async def watching(request: Request, gone: Callable[[], object]) -> AsyncGenerator[None]:
    """Call `gone` once the client has gone, as long as the block runs."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone()

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()


def listed(given: Any) -> list[Any]:
    """One text or several, or the token ids of one or of several, as a list."""
    several = isinstance(given, list) and bool(cast("list[Any]", given)) and not isinstance(given[0], int)
    return cast("list[Any]", given) if several else [given]


async def unless_gone(request: Request, answer: Coroutine[Any, Any, R]) -> R:
    """What `answer` gives, as long as the client waits for it.

    Raises:
        Gone: it does not.
    """
    task = asyncio.create_task(answer)
    async with watching(request, task.cancel):
        try:
            return await task
        except asyncio.CancelledError:
            own = asyncio.current_task()
            if own is not None and own.cancelling():
                task.cancel()
                raise
            raise Gone from None
