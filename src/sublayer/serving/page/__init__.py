"""The page at `/`, to try a server's models: its files, which are plain ES modules."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sublayer.inspection.assets import TYPES

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

FOLDER = Path(__file__).parent


@cache
def files() -> dict[str, tuple[bytes, str]]:
    """Every file of the page by name: its bytes and its media type."""
    return {
        path.name: (path.read_bytes(), TYPES[path.suffix]) for path in sorted(FOLDER.iterdir()) if path.suffix in TYPES
    }


async def index(_: Request) -> Response:
    from starlette.responses import Response

    held, kind = files()["index.html"]
    return Response(held, media_type=kind)


async def file(request: Request) -> Response:
    from starlette.responses import Response

    found = files().get(request.path_params["name"])
    return Response("there is no such file", 404) if found is None else Response(found[0], media_type=found[1])
