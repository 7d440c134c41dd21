"""API keys: read from a file, kept as digests, compared in a time that says nothing of them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from pathlib import Path

from sublayer.errors import InputError
from sublayer.untrusted import read_bytes

LONGEST = 512
"""Characters of a key."""


class Keys:
    """The keys that are let in; with none, everybody is."""

    def __init__(self, keys: Sequence[str] = ()) -> None:
        self._digests = [_digest(key) for key in keys]

    @classmethod
    def read(cls, path: Path) -> Keys:
        """The keys of a file, one a line; empty lines and those that begin with "#" are none.

        Raises:
            InputError: the file cannot be read or has no key.
        """
        held = read_bytes(path, InputError, "Name a file with an API key in each line.")
        try:
            # Some editors put a mark of the encoding first, which is no part of a key.
            lines = [line.strip() for line in held.decode("utf-8-sig").splitlines()]
        except UnicodeDecodeError:
            raise InputError(f"{path} is not UTF-8", "Write an API key in each line.") from None
        keys = [line for line in lines if line and not line.startswith("#")]
        if not keys:
            raise InputError(f"{path} has no key", "Write an API key in each line.")
        sendable = [key.isascii() and key.isprintable() for key in keys]
        if not all(sendable):
            unsendable = sendable.index(False) + 1
            raise InputError(
                f"{path}: key {unsendable} has characters that the headers of a request cannot hold",
                "Take letters, digits and signs of ASCII.",
            )
        too_long = next((number for number, key in enumerate(keys, 1) if len(key) > LONGEST), None)
        if too_long is not None:
            raise InputError(f"{path}: key {too_long} has over {LONGEST} characters", "Shorten it.")
        return cls(keys)

    @property
    def needed(self) -> bool:
        return bool(self._digests)

    def admit(self, key: str | None) -> bool:
        """Whether who gives this key is let in."""
        if not self._digests:
            return True
        if key is None or len(key) > LONGEST:
            return False
        given = _digest(key)
        # All of them, whichever fits.
        return sum(hmac.compare_digest(given, digest) for digest in self._digests) > 0


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def of_headers(headers: Mapping[str, str]) -> str | None:
    """The key that the headers of a request give."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key")
