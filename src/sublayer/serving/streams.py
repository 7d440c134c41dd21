"""Server-sent events: a reply that grows."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from sublayer.errors import SublayerError
from sublayer.serving.refusals import Failed
from sublayer.untrusted import to_json

if TYPE_CHECKING:
    from starlette.responses import Response

log = logging.getLogger("sublayer.serve")
DONE = b"data: [DONE]\n\n"


def event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + to_json(value, separators=(",", ":")).encode("utf-8") + b"\n\n"


async def streamed(
    parts: AsyncIterator[Mapping[str, Any]],
    failed: Callable[[SublayerError], Mapping[str, Any]],
    gone: Callable[[], None],
) -> Response:
    """A reply of events, ended by `[DONE]`. What goes wrong before the first is raised, and answered as an error.

    Args:
        failed: an error as an event. gone: called however it ends.
    """
    from starlette.responses import StreamingResponse

    try:
        first = await anext(parts, None)
    except BaseException:
        gone()
        raise

    async def events() -> AsyncIterator[bytes]:
        try:
            if first is not None:
                yield event(first)
            async for part in parts:
                yield event(part)
        except SublayerError as error:
            yield event(failed(error))
        except Exception:
            log.exception("a stream has met an error")
            yield event(failed(Failed()))
        finally:
            gone()
        yield DONE

    # Proxies are told to hand on each event as it comes.
    headers = {"x-accel-buffering": "no"}
    return StreamingResponse(events(), media_type="text/event-stream", headers=headers)
