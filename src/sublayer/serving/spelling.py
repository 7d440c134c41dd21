"""Single tokens as text and as bytes, as OpenAI's API writes them."""

from __future__ import annotations

import re

from sublayer.text import Tokenizer
from sublayer.text.pieces import SPACE, byte_level_piece

_BYTES = re.compile(r"((?:<0x[0-9A-F]{2}>)+)")


def raw(tokenizer: Tokenizer, token: int) -> bytes:
    """The bytes that a token stands for; of a special token, its name. Empty for one that no text has."""
    spelled = tokenizer.backend.id_to_token(token)
    if spelled is None:
        return b""
    if token in tokenizer.left_out:
        return spelled.encode()
    # A byte-level vocabulary writes bytes as letters, any other writes spaces as a sign of their own.
    text = byte_level_piece(spelled) if tokenizer.is_byte_level else spelled.replace(SPACE, " ")
    parts = (
        bytes.fromhex(part.replace("<0x", "").replace(">", "")) if _BYTES.fullmatch(part) else part.encode()
        for part in _BYTES.split(text)
    )
    return b"".join(parts)


def spelled(tokenizer: Tokenizer, token: int) -> str:
    """A token as text; where its bytes are no whole characters, as "bytes:\\xe2\\x82"."""
    held = raw(tokenizer, token)
    try:
        return held.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in held)
