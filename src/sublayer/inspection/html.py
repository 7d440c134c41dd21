"""A view as one HTML file that needs nothing else: it opens from the disk, and may be sent to anybody."""

from __future__ import annotations

import base64
import hashlib
import html
from pathlib import Path

from sublayer.errors import InputError
from sublayer.files import write_text
from sublayer.inspection import assets
from sublayer.inspection.view import View
from sublayer.untrusted import to_json


def require_html_path(path: Path) -> None:
    """Raise `InputError` unless `path` names a file that may become a page."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{path} is no name of a page", f"Say {path.with_suffix('.html').name}.")
    if path.is_dir():
        raise InputError(f"{path} is a folder", "Name a file, which the page may replace.")


def write_html(view: View, path: Path) -> None:
    """Write the page to `path`.

    Raises:
        InputError: `path` does not end in .html. StorageError: the disk refused; what was there is untouched.
    """
    require_html_path(path)
    write_text(path, document(view))


def document(view: View) -> str:
    """The page as text: style, script and data in one. Its content security policy lets nothing else in or out."""
    script, style = assets.bundle("recorded.js"), assets.text("style.css")
    # The end of the element must not stand in what it holds.
    data = to_json(view.plain(), separators=(",", ":"))
    data = data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    for held in (script, style):
        assert "</script" not in held
        assert "</style" not in held
    policy = f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; base-uri 'none'"
    title = html.escape(f"{view.question.text[:60]} · {view.about.name} · sublayer")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{title}</title>\n<link rel="icon" href="data:,">\n<style>{style}</style>\n</head>\n'
        '<body>\n<main id="app"><noscript>This page is drawn by JavaScript, which is switched off.</noscript></main>\n'
        f'<script type="application/json" id="view">{data}</script>\n'
        f'<script type="module">{script}</script>\n</body>\n</html>\n'
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
