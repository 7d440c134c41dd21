"""The lines of a plain text file, read lazily, with errors that name the line."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from sublayer.errors import DataError


def read_lines(path: Path) -> Iterator[str]:
    """The lines of `path`, without their ends; line n is the n-th value, counted from 1. A file *.gz is unpacked.

    Only a line feed ends a line (with a carriage return before it, if there is one): `str.splitlines` would also
    split at U+2028, form feeds and others that occur inside sentences, and shift every line after them. A byte order
    mark at the start is dropped. One line is held in memory at a time.

    Raises:
        DataError: the file is missing, is not a file, or has a line that is not UTF-8.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as handle:
            for number, raw in enumerate(handle, start=1):
                content = raw[:-1] if raw.endswith(b"\n") else raw
                content = content[:-1] if content.endswith(b"\r") else content
                yield _decode(content, path, number)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist", "Check the path; a relative one starts at the recipe.") from None
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}", "Copy or fetch the file again.") from None
    except OSError as error:
        raise DataError(f"could not read {path}: {error.strerror or error}", "Name a readable text file.") from error


def columns(line: str) -> list[str]:
    """The columns of a line: what stands between tabs, or, where there are none, between ASCII spaces.

    Other white space is part of a word: a number may have a no-break space inside, a name an ordinary one before a tab.
    """
    if "\t" in line:
        return [column.strip(" ") for column in line.split("\t")] if line.strip("\t ") else []
    return [column for column in line.split(" ") if column]


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
