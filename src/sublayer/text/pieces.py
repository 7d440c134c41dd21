"""Tokens as a human reads them."""

from __future__ import annotations

from functools import cache

SPACE = "▁"


@cache
def _byte_of() -> dict[str, int]:
    """GPT-2's table backwards: each of the 256 printable characters that byte-level BPE writes for a byte.

    Printable Latin-1 stands for itself; the other bytes, in order, are the characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in set(printable)]
    return {chr(value): value for value in printable} | {
        chr(0x100 + place): value for place, value in enumerate(others)
    }


def byte_level_alphabet() -> list[str]:
    """The character that a byte-level token has for each of the 256 bytes, in their order."""
    return sorted(_byte_of(), key=_byte_of().__getitem__)


def byte_level_piece(token: str) -> str:
    """The characters that a byte-level token stands for; bytes of an incomplete character as "<0xC3>"."""
    table = _byte_of()
    if not all(character in table for character in token):
        return token
    raw = bytes(table[character] for character in token)
    # Undecodable bytes come back as lone surrogates U+DC80 .. U+DCFF, which no UTF-8 text contains.
    text = raw.decode("utf-8", errors="surrogateescape")
    return "".join(f"<0x{ord(c) - 0xDC00:02X}>" if "\udc80" <= c <= "\udcff" else c for c in text)


def shown(piece: str) -> str:
    """`piece` fit for a label: leading spaces as "▁", unprintable characters escaped."""
    body = piece.lstrip(" ")
    visible = "".join(c if c.isprintable() or c in SPACE else c.encode("unicode_escape").decode() for c in body)
    return SPACE * (len(piece) - len(body)) + visible
