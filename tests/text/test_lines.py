"""Lines of files: what ends one, and what is said about bytes that are no text."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from sublayer.errors import DataError
from sublayer.text import lines as module
from sublayer.text.lines import read_lines, spans


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


@given(
    content=st.lists(st.sampled_from([b"\n", b"a", b"\r\n", b"bc", b"\n\n"]), max_size=40).map(b"".join),
    lines=st.integers(1, 6),
    block=st.integers(1, 9),
)
def test_spans_together_are_the_file(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, lines: int, block: int
) -> None:
    path = tmp_path_factory.mktemp("spans") / "text.txt"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        found, count = spans(path, lines)
    whole = list(read_lines(path))
    assert count == len(whole)
    assert [line for span in found for line in read_lines(path, span)] == whole
    assert [span.first for span in found] == list(range(1, max(count, 1) + 1, lines))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_packed_files_are_read_as_what_is_in_them(tmp_path: Path, suffix: str) -> None:
    parts = [b"one\n\xc3", b"\xb1\r\n" + b"three " * 50_000, b"\nlast"]
    pack = gzip.compress if suffix == ".gz" else zstandard.compress
    (tmp_path / "plain.txt").write_bytes(b"".join(parts))
    path = tmp_path / f"text.txt{suffix}"
    path.write_bytes(b"".join(map(pack, parts)))
    assert list(read_lines(path)) == list(read_lines(tmp_path / "plain.txt"))
    assert spans(path, 3) == ([module.WHOLE], -1)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match="is damaged"):
        list(read_lines(path))
