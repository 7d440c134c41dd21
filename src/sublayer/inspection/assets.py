"""The page's files: as they are for the server, and as one script where nothing can be fetched.

The page is plain ES modules in `page/`. A file opened from the disk may not import another one, and a notebook takes
one module; so what a module imports is put before it, each in a function of its own. No build stands between: what is
shipped is what is read here.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("page")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}

_IMPORT = re.compile(r'^import \{ ([\w ,$]+) \} from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?function (\w+)|const (\w+)|class (\w+))", re.MULTILINE)


@cache
def text(name: str) -> str:
    """A file of the page."""
    return (FOLDER / name).read_text(encoding="utf-8")


def files() -> dict[str, tuple[bytes, str]]:
    """Every file of the page by name: its bytes and its media type."""
    return {
        path.name: (path.read_bytes(), TYPES[path.suffix]) for path in sorted(FOLDER.iterdir()) if path.suffix in TYPES
    }


@cache
def bundle(entry: str) -> str:
    """The module `entry` ("widget.js") and all that it imports, as one module that imports nothing."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        for found in _IMPORT.finditer(text(f"{name}.js")):
            visit(found[2])
        order.append(name)

    visit(entry.removesuffix(".js"))
    *imported, last = order
    return "\n".join([*(_enclosed(name) for name in imported), _linked(last)])


def _linked(name: str) -> str:
    """A module whose imports are taken from the constants that stand for the modules before it."""
    body = _IMPORT.sub(
        lambda found: f"const {{ {found[1].replace(' as ', ': ')} }} = module_{found[2]};\n", text(f"{name}.js")
    )
    assert not re.search(r"^import\b", body, re.MULTILINE), (
        f"{name}.js: an import in a form that bundle() does not know"
    )
    return body


def _enclosed(name: str) -> str:
    body = _linked(name)
    exported = [next(filter(None, found.groups())) for found in _EXPORT.finditer(body)]
    body = _EXPORT.sub("", body)
    assert not re.search(r"^export\b", body, re.MULTILINE), (
        f"{name}.js: an export in a form that bundle() does not know"
    )
    return f"const module_{name} = (() => {{\n{body}return {{ {', '.join(exported)} }};\n}})();"
