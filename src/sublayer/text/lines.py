"""The lines of a plain text file, read lazily, with errors that name the line."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from sublayer.errors import DataError
from sublayer.text import zstd

PACKED = (".gz", ".zst")
"""How the names of files end that are unpacked while they are read, and so have to be read from their beginning."""


@dataclass(frozen=True)
class Span:
    """Some lines of a file. begin: the byte where the first stands. first: its number, from 1. count: how many there
    are; None for all that follow."""

    begin: int = 0
    first: int = 1
    count: int | None = None


WHOLE = Span()


def read_lines(path: Path, span: Span = WHOLE) -> Iterator[str]:
    """The lines of `path`, without their ends; line n is the n-th value, counted from 1. *.gz and *.zst are unpacked.

    Only a line feed ends a line (with a carriage return before it, if there is one): `str.splitlines` would also
    split at U+2028, form feeds and others that occur inside sentences, and shift every line after them. A byte order
    mark at the start is dropped. One line is held in memory at a time.

    Args:
        span: the lines that are wanted; numbers are counted from `span.first`.

    Raises:
        DataError: the file is missing, is not a file, or has a line that is not UTF-8.
    """
    for number, raw in enumerate(read_raw_lines(path, span), start=span.first):
        yield _decode(raw, path, number)


def read_raw_lines(path: Path, span: Span = WHOLE) -> Iterator[bytes]:
    """The lines as `read_lines` finds them, before they are decoded; a byte order mark is still there.

    Raises:
        DataError: the file is missing, is not a file, or is damaged.
    """
    try:
        with _opened(path) as handle:
            if span.begin:
                handle.seek(span.begin)
            for raw in islice(handle, span.count):
                content = raw[:-1] if raw.endswith(b"\n") else raw
                yield content[:-1] if content.endswith(b"\r") else content
    except (EOFError, zlib.error, zstd.DamagedError) as error:
        raise DataError(f"{path} is damaged: {error}", "Copy or fetch the file again.") from None
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> DataError:
    """What is to be raised where a file cannot be read."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path} does not exist", "Check the path; a relative one starts at the recipe.")
    return DataError(f"could not read {path}: {error.strerror or error}", "Name a readable text file.")


def spans(path: Path, lines: int) -> tuple[list[Span], int]:
    """The file in spans of so many lines each, and how many lines it has; a packed file is one span, of unknown length.

    Raises:
        DataError: as `read_lines`.
    """
    if path.suffix in PACKED:
        return [WHOLE], -1
    begins, seen, at, ended = [0], 0, 0, True
    try:
        with path.open("rb") as handle:
            while block := handle.read(_BLOCK):
                ends = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == _LINE_FEED)
                begins += (at + 1 + ends[lines * len(begins) - seen - 1 :: lines]).tolist()
                seen, at, ended = seen + len(ends), at + len(block), block.endswith(b"\n")
    except OSError as error:
        raise unreadable(path, error) from None
    total = seen if ended else seen + 1
    if len(begins) > 1 and begins[-1] == at:
        begins.pop()
    return [Span(begin, 1 + number * lines, lines) for number, begin in enumerate(begins)], total


_BLOCK, _LINE_FEED = 1 << 22, 10


def columns(line: str) -> list[str]:
    """The columns of a line: what stands between tabs, or, where there are none, between ASCII spaces.

    Other white space is part of a word: a number may have a no-break space inside, a name an ordinary one before a tab.
    """
    if "\t" in line:
        return [column.strip(" ") for column in line.split("\t")] if line.strip("\t ") else []
    return [column for column in line.split(" ") if column]


def cell(found: Sequence[str], place: int, name: str, path: Path, number: int, between: str = "tabs") -> str:
    """One of the columns that were found in a line.

    Args:
        place: counted from 0, or from the last as -1. name: of the setting that says it. between: what separates the
            columns.

    Raises:
        DataError: there is no such column.
    """
    if not -len(found) <= place < len(found):
        raise DataError(
            f"{path}, line {number}: column {place} is missing, there are {len(found)} (counted from 0)",
            f"Check that {between} separate the columns, and {name}.",
        )
    return found[place]


def _opened(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return cast("BinaryIO", gzip.open(path))
    return zstd.opened(path) if path.suffix == ".zst" else path.open("rb")


def _decode(raw: bytes, path: Path, number: int) -> str:
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        # The decoder that drops the mark counts from behind it.
        place = error.start + len(raw) - len(error.object) + 1
        raise DataError(
            f"{path}, line {number}: byte {place} (0x{error.object[error.start]:02X}) is not UTF-8",
            _conversion(raw, number),
        ) from None


# Longer marks first: that of UTF-32 in this order begins as that of UTF-16 does.
_MARKS = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def _conversion(raw: bytes, number: int) -> str:
    """How to make the file UTF-8, by the byte order mark that it begins with."""
    named = next((name for mark, name in _MARKS.items() if number == 1 and raw.startswith(mark)), None)
    if named is not None:
        return f"It begins as {named} does: convert it, `iconv -f {named} -t UTF-8 FILE > NEW`."
    return "Convert the file from the encoding it has, say `iconv -f LATIN1 -t UTF-8 FILE > NEW`."
