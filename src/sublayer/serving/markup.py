"""HTML in pieces: the text that is to be translated, and the markup around it, which stays as it was.

Each run of text between two tags is translated by itself, so no tag can get lost or move. What is not for readers
(scripts, styles, code) and what says `translate="no"` stays. It is read by the standard library's parser, which takes
any text.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from html.parser import HTMLParser

KEPT = frozenset({"script", "style", "code", "pre", "kbd", "samp", "var", "math", "svg", "textarea", "template"})
VOID = frozenset(["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"])


@dataclass(frozen=True)
class Piece:
    """A part of the source. text: whether it is to be translated; its characters then stand for themselves."""

    value: str
    text: bool


class _Pieces(HTMLParser):
    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=False)
        self.pieces: list[Piece] = []
        self._open: list[tuple[str, bool]] = []
        self._text: list[str] = []
        self.feed(source)
        self.close()
        self._flush()

    @property
    def _kept(self) -> bool:
        return bool(self._open) and self._open[-1][1]

    def _flush(self) -> None:
        raw = "".join(self._text)
        self._text = []
        if raw:
            self.pieces.append(Piece(raw, False) if self._kept else Piece(html.unescape(raw), True))

    def _markup(self, raw: str) -> None:
        self._flush()
        self.pieces.append(Piece(raw, False))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._markup(self.get_starttag_text() or "")
        if tag not in VOID:
            said = dict(attrs)
            kept = (
                self._kept or tag in KEPT or said.get("translate") == "no" or "notranslate" in (said.get("class") or "")
            )
            self._open.append((tag, kept))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._markup(self.get_starttag_text() or "")

    def handle_endtag(self, tag: str) -> None:
        self._flush()
        self.pieces.append(Piece(f"</{tag}>", False))
        # Ends what it can: a tag that was never opened ends nothing.
        for place in range(len(self._open) - 1, -1, -1):
            if self._open[place][0] == tag:
                del self._open[place:]
                break

    def handle_data(self, data: str) -> None:
        self._text.append(data)

    def handle_entityref(self, name: str) -> None:
        self._text.append(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self._text.append(f"&#{name};")

    def handle_comment(self, data: str) -> None:
        self._markup(f"<!--{data}-->")

    def handle_decl(self, decl: str) -> None:
        self._markup(f"<!{decl}>")

    def handle_pi(self, data: str) -> None:
        self._markup(f"<?{data}>")

    def unknown_decl(self, data: str) -> None:
        self._markup(f"<![{data}]>")


def pieces(source: str) -> list[Piece]:
    """The parts of a piece of HTML, in order."""
    return _Pieces(source).pieces


def written(piece: Piece) -> str:
    """A part as it stands in HTML."""
    return html.escape(piece.value, quote=False) if piece.text else piece.value
