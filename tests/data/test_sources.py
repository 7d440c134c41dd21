"""Parallel text from files: what is read, what is counted, and errors that name the line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublayer.config import Jsonl, LineAligned, NamedCorpus, Tsv
from sublayer.data.report import Report
from sublayer.data.sources import Pairs, read
from sublayer.errors import DataError

LINES = LineAligned(source="a.en", target="a.es")
TSV = Tsv(path="a.tsv")
JSONL = Jsonl(path="a.jsonl")


def write(folder: Path, **contents: str | bytes) -> None:
    for name, content in contents.items():
        raw = content if isinstance(content, bytes) else content.encode()
        (folder / name.replace("_", ".")).write_bytes(raw)


def rows(pairs: Pairs) -> list[tuple[str, str]]:
    return list(zip(pairs.sources, pairs.targets, strict=True))


def test_line_aligned_files(tmp_path: Path) -> None:
    write(tmp_path, a_en="\ufeffOne \r\nTwo\u2028more\r\n", a_es="\tUno\nDos")
    pairs = read(LINES, tmp_path)
    assert rows(pairs) == [("One", "Uno"), ("Two\u2028more", "Dos")]
    assert pairs.report == Report(read=2, kept=2)
    assert pairs.lines == [1, 2]


def test_a_path_may_be_absolute(tmp_path: Path) -> None:
    write(tmp_path, a_tsv="One\tUno\n")
    assert len(read(Tsv(path=str(tmp_path / "a.tsv")), Path("/elsewhere"))) == 1


def test_tsv_columns_and_quotes(tmp_path: Path) -> None:
    write(tmp_path, a_tsv='1\t"One\tUno"\tnote\n2\tTwo\tDos\n')
    pairs = read(Tsv(path="a.tsv", source_column=1, target_column=2), tmp_path)
    assert rows(pairs) == [('"One', 'Uno"'), ("Two", "Dos")]


def test_jsonl_fields(tmp_path: Path) -> None:
    write(tmp_path, a_jsonl='{"en": "One\\nline", "es": "Uno", "n": 1}\n\n{"en": "Two", "es": "Dos"}\n')
    pairs = read(Jsonl(path="a.jsonl", source_field="en", target_field="es"), tmp_path)
    assert rows(pairs) == [("One\nline", "Uno"), ("Two", "Dos")]
    assert pairs.lines == [1, 3]
    assert str(pairs.report) == "2 of 3 pairs; left out: 1 blank line (line 2)"


def test_empty_sides_are_counted_by_line_and_kept_out(tmp_path: Path) -> None:
    write(tmp_path, a_en="One\n \nThree\n\nFive\n" + "\n" * 7, a_es="Uno\nDos\n\t\n\nCinco\n" + "x\n" * 7)
    pairs = read(LINES, tmp_path)
    assert rows(pairs) == [("One", "Uno"), ("Five", "Cinco")]
    assert (pairs.report.read, pairs.report.kept) == (12, 2)
    dropped = {each.reason: (each.count, each.lines) for each in pairs.report.dropped}
    assert dropped == {
        "empty source": (8, (2, 6, 7, 8, 9)),
        "empty target": (1, (3,)),
        "blank line": (1, (4,)),
    }
    assert "8 empty source (lines 2, 6, 7, 8, 9, …)" in str(pairs.report)


@pytest.mark.parametrize(("source", "target"), [("a\n" * 3, "b\n" * 7), ("a\n" * 7, "b\n" * 3)])
def test_unequal_line_counts_are_named_both(tmp_path: Path, source: str, target: str) -> None:
    write(tmp_path, a_en=source, a_es=target)
    with pytest.raises(DataError, match=r"has 3 lines but .* has 7\."):
        read(LINES, tmp_path)


@pytest.mark.parametrize(
    ("text", "content", "message"),
    [
        (TSV, "a\tb\nonly one\n", r"a\.tsv, line 2: column 1 is missing, there are 1"),
        (TSV, b"a\tb\nc\tca\xf1a\n", r"a\.tsv, line 2: byte 5 \(0xF1\) is not UTF-8"),
        (JSONL, '{"source": "a", "target": "b"}\n{"source": \n', r"a\.jsonl, line 2: it is not JSON"),
        (JSONL, '["a", "b"]\n', r"a\.jsonl, line 1: not an object"),
        (JSONL, '{"source": "a", "goal": "b"}\n', r"line 1: no field 'target' \(fields: source, goal\)"),
        (JSONL, '{"source": "a", "target": 5}\n', r"line 1: field 'target' is 5, not a string"),
        (JSONL, '{"source": "a", "target": null}\n', r"line 1: field 'target' is None"),
        (JSONL, '{"source": "a", "target": "\\ud800"}\n', r"line 1: it has half of a surrogate"),
        (TSV, "", r"a\.tsv has no pairs"),
        (TSV, "\n\n", r"a\.tsv has no pairs\. Check the path"),
        (TSV, "a\t\n\tb\n", r"has no pairs"),
    ],
)
def test_what_cannot_be_read_is_named_by_line(
    tmp_path: Path, text: Tsv | Jsonl, content: str | bytes, message: str
) -> None:
    write(tmp_path, **{text.path.replace(".", "_"): content})
    with pytest.raises(DataError, match=message):
        read(text, tmp_path)


def test_missing_files_and_corpora_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.en does not exist"):
        read(LINES, tmp_path)
    with pytest.raises(DataError, match="Did you mean 'tatoeba-en-es'"):
        read(NamedCorpus(name="tatoeba-en-ed"), tmp_path)


SIDE = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\t\ufeff"), max_size=8)


@given(table=st.lists(st.tuples(SIDE, SIDE), min_size=1))
def test_every_form_gives_the_same_pairs_and_counts(
    tmp_path_factory: pytest.TempPathFactory, table: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("forms")
    table = [*table, ("end", "fin")]
    write(
        folder,
        a_en="".join(f"{source}\n" for source, _ in table),
        a_es="".join(f"{target}\n" for _, target in table),
        a_tsv="".join(f"{source}\t{target}\n" for source, target in table),
        a_jsonl="".join(json.dumps({"source": source, "target": target}) + "\n" for source, target in table),
    )
    expected = [(source.strip(), target.strip()) for source, target in table if source.strip() and target.strip()]
    for text in (LINES, TSV, JSONL):
        pairs = read(text, folder)
        assert rows(pairs) == expected
        assert pairs.report.read == len(table) == pairs.report.kept + sum(each.count for each in pairs.report.dropped)
        assert [table[line - 1][0].strip() for line in pairs.lines] == pairs.sources
