"""The bodies of requests, read within limits: JSON, and forms as browsers and curl send them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl

from sublayer.serving.limits import RequestLimits
from sublayer.serving.refusals import Gone, Refusal
from sublayer.untrusted import UntrustedError, parse_json

if TYPE_CHECKING:
    from starlette.requests import Request

JSON, URLENCODED, MULTIPART = "application/json", "application/x-www-form-urlencoded", "multipart/form-data"
MORE = 16
"""Fields of a form beside its texts."""


def kinds(*, forms: bool) -> list[str]:
    """The types that a body may have."""
    return [JSON, *([URLENCODED, MULTIPART] if forms else [])]


async def table_of(request: Request, limits: RequestLimits, *, forms: bool = False) -> dict[str, Any]:
    """What a request says: a JSON object, or, with `forms`, a form. Read once."""
    if not hasattr(request.state, "table"):
        request.state.table = await _table(request, limits, forms)
    return request.state.table


async def _table(request: Request, limits: RequestLimits, forms: bool) -> dict[str, Any]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in kinds(forms=forms):
        # A form of another page cannot send JSON without asking first, which is not answered.
        raise Refusal(f"content-type is {kind[:80]!r}", f"Send {' or '.join(kinds(forms=forms))}.", status=415)
    held = await body_of(request, limits)
    if kind != JSON:
        return _gathered(await _fields(request, kind, held, limits.texts + MORE))
    try:
        value: Any = parse_json(held)
    except UntrustedError as error:
        raise Refusal(f"the request {error}", "Send one JSON object.") from None
    if not isinstance(value, dict):
        raise Refusal("the request is not a JSON object", "Send one JSON object.")
    return cast("dict[str, Any]", value)


async def body_of(request: Request, limits: RequestLimits) -> bytes:
    """A request's body, if it is of bounded size and came in bounded time."""
    from starlette.requests import ClientDisconnect

    held = bytearray()
    try:
        async with asyncio.timeout(limits.reading):
            async for chunk in request.stream():
                held += chunk
                if len(held) > limits.body:
                    raise Refusal(f"a request has {limits.body:,} bytes at most", "Ask for less at a time.", status=413)
    except ClientDisconnect:
        raise Gone from None
    except TimeoutError:
        raise Refusal(f"the request did not come within {limits.reading:g} s", status=408) from None
    return bytes(held)


async def _fields(request: Request, kind: str, held: bytes, most: int) -> Iterable[tuple[str, str]]:
    """The fields of a form, in order."""
    try:
        text = held.decode("utf-8")
        if kind == URLENCODED:
            return parse_qsl(text, keep_blank_values=True, max_num_fields=most, errors="strict")
    except (UnicodeDecodeError, ValueError):
        raise Refusal("the form is not UTF-8, or has too many fields", "Encode it as UTF-8.") from None
    from starlette.formparsers import MultiPartException, MultiPartParser

    async def whole() -> AsyncGenerator[bytes, None]:
        yield held

    try:
        parser = MultiPartParser(request.headers, whole(), max_files=0, max_fields=most, max_part_size=len(held))
        found = await parser.parse()
    except MultiPartException as error:
        raise Refusal(f"the form cannot be read ({error.message})", "Send texts as fields, and no files.") from None
    return [(name, value) for name, value in found.multi_items() if isinstance(value, str)]


def _gathered(fields: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Fields by name; of one that comes several times, a list."""
    table: dict[str, Any] = {}
    for name, value in fields:
        if name in table:
            before = table[name]
            table[name] = [*cast("list[str]", before if isinstance(before, list) else [before]), value]
        else:
            table[name] = value
    return table
