"""Lines of files: what ends one, and what is said about bytes that are no text."""

from __future__ import annotations

from pathlib import Path

import pytest

from sublayer.errors import DataError
from sublayer.text.lines import read_lines


def lines_of(folder: Path, content: bytes) -> list[str]:
    path = folder / "text.txt"
    path.write_bytes(content)
    return list(read_lines(path))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"a\nb\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\n\nb\n", ["a", "", "b"]),
        (b"\xef\xbb\xbfa\nb\n", ["a", "b"]),
        # Line and paragraph separators, next line, form feed, a lone carriage return: all inside the sentence.
        ("a\u2028b\u2029c\u0085d\x0ce\rf\ng\n".encode(), ["a\u2028b\u2029c\u0085d\x0ce\rf", "g"]),
    ],
)
def test_only_a_line_feed_ends_a_line(tmp_path: Path, content: bytes, expected: list[str]) -> None:
    assert lines_of(tmp_path, content) == expected


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"fine\nca\xf1on\n", r"line 2: byte 3 \(0xF1\)"),
        (b"\xff\xfea\x00\n\x00", r"line 1: byte 1 \(0xFF\)"),
        (b"\xef\xbb\xbfab\xff\n", r"line 1: byte 6 \(0xFF\)"),
    ],
)
def test_bad_utf8_is_named_by_file_line_and_byte(tmp_path: Path, content: bytes, place: str) -> None:
    with pytest.raises(DataError, match=rf"text\.txt, {place} is not UTF-8.*iconv"):
        lines_of(tmp_path, content)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.txt does not exist"):
        list(read_lines(tmp_path / "gone.txt"))
    with pytest.raises(DataError, match="could not read"):
        list(read_lines(tmp_path))
