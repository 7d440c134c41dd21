"""Tokens as a reader of text sees them: without the signs that tokenizers put for spaces and for parts of words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from sublayer.inspection.view import Token
from sublayer.text import Tokenizer
from sublayer.text.tokens import Tokens

SPACE = "▁"
ONLY_SPACE = "␣"


def labelled(
    tokenizer: Tokenizer, ids: Sequence[int], text: str = "", spans: Tokens | None = None
) -> tuple[Token, ...]:
    """Each id as a `Token`.

    Args:
        text, spans: what the ids, or the part of them that `spans` holds, were made from: an unknown token then shows
            the characters that the vocabulary does not have.
    """
    continues = _continues(tokenizer)
    specials, unknown = tokenizer.specials.ids, tokenizer.specials.unknown
    surface, joined = _surface(ids, text, spans)
    found: list[Token] = []
    for place, (token, piece) in enumerate(zip(ids, tokenizer.pieces(ids), strict=True)):
        if token == unknown:
            found.append(Token(token, surface.get(place) or piece, kind="unknown"))
        elif token in specials:
            found.append(Token(token, piece, kind="special"))
        else:
            inside = bool(found) and found[-1].kind != "special"
            found.append(Token(token, plain(piece), glued=inside and joined.get(place, continues(piece))))
    return tuple(found)


def spellings(tokenizer: Tokenizer) -> Callable[[int], str]:
    """How single tokens are written where no text is around them: a "·" before what goes on within a word."""
    continues, specials = _continues(tokenizer), tokenizer.specials.ids

    @cache
    def spelled(token: int) -> str:
        [piece] = tokenizer.pieces([token])
        if token in specials:
            return piece
        word = plain(piece)
        return f"·{word}" if continues(piece) and word[:1].isalnum() else word

    return spelled


def plain(piece: str) -> str:
    """
    >>> plain("▁trans"), plain("##lation"), plain("▁")
    ('trans', 'lation', '␣')
    """
    word = piece.removeprefix("##") if len(piece) > 2 else piece
    return word.lstrip(SPACE) or ONLY_SPACE * max(1, len(word))


def _continues(tokenizer: Tokenizer) -> Callable[[str], bool]:
    """Whether a piece goes on the word before it, by how the tokenizer writes that."""
    match type(tokenizer.backend.model).__name__:
        case "WordPiece":
            return lambda piece: piece.startswith("##")
        case "WordLevel":
            return lambda piece: False
        case _:
            return lambda piece: not piece.startswith(SPACE)


def _surface(ids: Sequence[int], text: str, spans: Tokens | None) -> tuple[dict[int, str], dict[int, bool]]:
    """By place: the characters of the text there, and whether they follow those before without a space."""
    if spans is None:
        return {}, {}
    # The ids may hold what was put around the text.
    size = len(spans.ids)
    begin = next((at for at in range(len(ids) - size + 1) if list(ids[at : at + size]) == spans.ids), None)
    if begin is None:
        return {}, {}
    surface: dict[int, str] = {}
    joined: dict[int, bool] = {}
    end = 0
    for place, (start, stop) in enumerate(spans.spans, start=begin):
        surface[place] = text[start:stop].strip()
        if start < stop:
            joined[place] = start == end and not text[start].isspace()
            end = stop
    return surface, joined
