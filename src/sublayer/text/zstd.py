"""Files that zstd packed, read as though they were plain."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any, BinaryIO, cast

from sublayer.errors import DataError


class DamagedError(Exception):
    """What is in the file is not what zstd wrote."""


def opened(path: Path) -> BinaryIO:
    """The file, unpacked while it is read.

    Raises:
        OSError: it cannot be opened. DataError: nothing here can unpack it.
    """
    return cast("BinaryIO", io.BufferedReader(_Unpacked(path), _BUFFER))


_READ, _BUFFER = 1 << 16, 1 << 20


class _Unpacked(io.RawIOBase):
    """Frame after frame. A last frame that does not end is an error: `zstandard` alone would say nothing."""

    def __init__(self, path: Path) -> None:
        self._new, self._error = _library(path)
        self._file = path.open("rb")
        self._frame: Any = None
        self._ready, self._place, self._packed = b"", 0, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while self._place == len(self._ready) and self._more():
            pass
        some = self._ready[self._place : self._place + len(buffer)]
        buffer[: len(some)] = some
        self._place += len(some)
        return len(some)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _more(self) -> bool:
        """Unpack some more; False at the end of the file."""
        self._packed = self._packed or self._file.read(_READ)
        if not self._packed:
            if self._frame is not None:
                raise DamagedError("it ends in the middle")
            return False
        if self._frame is None:
            self._frame = self._new()
        try:
            self._ready, self._place = self._frame.decompress(self._packed), 0
        except self._error as error:
            raise DamagedError(str(error)) from None
        self._packed = b""
        if self._frame.eof:
            self._packed, self._frame = self._frame.unused_data, None
        return True


def _library(path: Path) -> tuple[Any, type[Exception]]:
    """What makes a decompressor, and what it raises."""
    if sys.version_info >= (3, 14):
        from compression import zstd  # pyright: ignore

        return zstd.ZstdDecompressor, zstd.ZstdError  # pyright: ignore
    try:
        import zstandard  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise DataError(
            f"{path} is packed by zstd, and nothing here unpacks that",
            "Install sublayer[data], or unpack the file: `zstd -d FILE`.",
        ) from None
    return zstandard.ZstdDecompressor().decompressobj, zstandard.ZstdError  # pyright: ignore
