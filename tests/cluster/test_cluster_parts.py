"""How files are cut, what of a row goes through, and how a row fails alone. Nothing here needs Ray."""

from __future__ import annotations

import datetime
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.rows import rows, write
from sublayer.cluster import parts as parts_
from sublayer.cluster.jobs import answers
from sublayer.cluster.layout import layout
from sublayer.cluster.output import counted, writing
from sublayer.cluster.parts import Chunk, Part, cut, inputs, read
from sublayer.errors import DataError, InputError

NEW = {"translation": "string"}


def read_all(files: list[Path], size: int) -> list[Any]:
    found: list[Any] = []
    for part in cut(files, size):
        of_part = [row for chunk in read(part) for row in _dicts(chunk)]
        assert part.count is None or len(of_part) <= part.count
        found += of_part
    return found


def _dicts(chunk: Chunk) -> list[Any]:
    return chunk.rows if isinstance(chunk.rows, list) else chunk.rows.to_pylist()


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.jsonl.gz"])
@given(count=st.integers(1, 200), size=st.integers(1, 90), group=st.integers(1, 90), chunk=st.integers(1, 40))
def test_parts_hold_every_row_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, name: str, count: int, size: int, group: int, chunk: int
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    files = [write(folder / f"{number}{name}", rows(count, 1000 * number), group) for number in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts_, "ROWS", chunk)
        assert read_all(files, size) == rows(count) + rows(count, 1000)
    assert cut(files, size) == cut(files, size)
    assert [part.number for part in cut(files, size)] == [*range(len(cut(files, size)))]


def test_chunks_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_, "ROWS", 8)
    for name in ("a.parquet", "a.jsonl", "a.jsonl.gz"):
        file = write(tmp_path / name, rows(100))
        assert max(len(chunk.rows) for part in cut([file], 50) for chunk in read(part)) <= 8


def test_a_file_that_two_names_stand_for_is_read_once(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", rows(3))
    assert inputs([tmp_path / "*.jsonl", str(file)]) == [file]


@pytest.mark.parametrize(
    ("names", "error"),
    [
        (["*.ndjson"], "no file is called"),
        (["missing.jsonl"], "does not exist"),
        (["a.txt"], "neither Parquet nor JSON lines"),
        (["a.jsonl", "b.parquet"], "of different formats"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, names: list[str], error: str) -> None:
    write(tmp_path / "a.jsonl", rows(1))
    write(tmp_path / "b.parquet", rows(1))
    (tmp_path / "a.txt").write_text("one\n")
    with pytest.raises(DataError, match=error):
        inputs([tmp_path / name for name in names])


def test_the_column_of_the_text(tmp_path: Path) -> None:
    pairs = write(tmp_path / "pairs.parquet", [{"source": "a", "target": "b"}])
    assert layout([pairs], None, NEW, None).column == "source"
    assert layout([pairs], "target", NEW, None).column == "target"
    texts = write(tmp_path / "texts.jsonl", [{"source": "a", "text": "b"}])
    assert layout([texts], None, NEW, None).column == "text"
    # The first file may be empty.
    assert (
        layout([write(tmp_path / "empty.jsonl", []), pairs.with_name("texts.jsonl")], None, NEW, None).column == "text"
    )


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("row", "column", "error"),
    [
        ({"body": "a"}, None, "has no column 'text'"),
        ({"text": "a"}, "body", "has no column 'body'"),
        ({"text": "a", "translation": "b"}, None, "has a column 'translation'"),
        ({"text": "a", "error": "b"}, None, "has a column 'error'"),
    ],
)
def test_columns_that_cannot_be(
    tmp_path: Path, suffix: str, row: dict[str, str], column: str | None, error: str
) -> None:
    file = write(tmp_path / f"a.{suffix}", [row])
    with pytest.raises(DataError, match=error):
        layout([file], column, NEW, None)


def test_columns_that_the_other_format_does_not_have(tmp_path: Path) -> None:
    when = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    timed = write(tmp_path / "a.parquet", [{"text": "a", "when": when}])
    assert layout([timed], None, NEW, None).format == "parquet"
    with pytest.raises(DataError, match="not JSON serializable"):
        layout([timed], None, NEW, "jsonl")
    number = write(tmp_path / "b.parquet", [{"text": 1}])
    with pytest.raises(DataError, match="column 'text' is of int64"):
        layout([number], None, NEW, None)
    mixed = write(tmp_path / "c.jsonl", [{"text": "a", "x": 1}, {"text": "a", "x": "one"}])
    with pytest.raises(DataError, match="field 'x' makes no column of Parquet"):
        layout([mixed], None, NEW, "parquet")
    bare = write(tmp_path / "d.jsonl", [{"text": "a", "x": {}}])
    assert layout([bare], None, NEW, None).format == "jsonl"
    with pytest.raises(DataError, match="make no columns of Parquet"):
        layout([bare], None, NEW, "parquet")


def put_through(file: Path, out: Path, output: Any = None) -> None:
    """The rows of a file into an output, the text itself for its translation."""
    found = layout([file], None, NEW, output)
    with writing(out, found) as sink:
        for chunk in map(found.fitted, read(Part(0, str(file), 1, 10_000))):
            texts = chunk.texts(found.column)
            errors = [chunk.faults.get(place) for place in range(len(texts))]
            sink.write(chunk, {"translation": [t if isinstance(t, str) else None for t in texts], "error": errors})


def through(file: Path, out: Path, output: Any = None) -> list[Any]:
    put_through(file, out, output)
    if out.suffix == ".jsonl":
        return [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    return parquet.read_table(out).to_pylist()


def test_columns_of_every_type_go_through_as_they_are(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["a", "b"],
            "when": pa.array([1, 2], pa.timestamp("ns")),
            "raw": [b"\xff", None],
            "kind": pa.array(["x", "y"]).dictionary_encode(),
            "many": [{"a": [1.5, math.nan]}, None],
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    put_through(tmp_path / "a.parquet", tmp_path / "out.parquet")
    kept = parquet.read_table(tmp_path / "out.parquet")
    assert kept.schema.names == [*table.schema.names, "translation", "error"]
    for name in ("when", "raw", "kind"):
        assert kept.column(name).combine_chunks().equals(table.column(name).combine_chunks())
    assert repr(kept.column("many").to_pylist()) == repr(table.column("many").to_pylist())


@pytest.mark.parametrize(("suffix", "output"), [("jsonl", "parquet"), ("parquet", "jsonl"), ("jsonl", "jsonl")])
def test_formats_into_one_another(tmp_path: Path, suffix: str, output: str) -> None:
    some = rows(1200)
    found = through(write(tmp_path / f"a.{suffix}", some), tmp_path / f"out.{output}", output)
    assert found == [{**row, "translation": row["text"], "error": None} for row in some]


def test_rows_that_cannot_stand_in_the_output_are_given_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sublayer.cluster.layout.SAMPLE", 1)
    lines = [
        b'\xef\xbb\xbf{"text": "a", "n": 1}',
        b"",
        b'{"text": "b", "n": 2',
        b"[1]",
        b'{"text": "\xff"}',
        b'{"text": "c", "error": "mine"}',
        b'{"text": "d", "n": 3}',
    ]
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"\n".join(lines))
    for output in ("jsonl", "parquet"):
        found = through(file, tmp_path / f"out.{output}", output)
        assert [row["translation"] for row in found] == ["a", None, None, None, None, "d"]
        wrong = [row["error"] for row in found[1:5]]
        assert "is not JSON" in wrong[0]
        assert '{"text": "b", "n": 2' in wrong[0]
        assert "is not an object; the line: [1]" in wrong[1]
        assert "is not UTF-8" in wrong[2]
        assert r"\xff" in wrong[2]
        assert '{"text": "c", "error": "mine"}' in wrong[3]
        assert counted(tmp_path / f"out.{output}") == (6, 4)


def test_rows_that_do_not_fit_the_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sublayer.cluster.layout.SAMPLE", 2)
    some = [{"text": "a", "n": 1}, {"text": "b"}, {"text": "c", "n": "x"}, {"text": "d", "m": 1}, {"text": 5}]
    found = through(write(tmp_path / "a.jsonl", some), tmp_path / "out.parquet", "parquet")
    assert [row["translation"] for row in found] == ["a", "b", None, None, None]
    for row, given_ in zip(found[2:], some[2:], strict=True):
        assert json.dumps(given_) in row["error"]
    numbers = write(tmp_path / "a.parquet", [{"text": "b", "n": 0.5}, {"text": "a", "n": math.nan}])
    found = through(numbers, tmp_path / "out.jsonl", "jsonl")
    assert "not a finite number" in found[1]["error"]
    assert '{"text": "a", "n": NaN}' in found[1]["error"]
    assert found[0] == {"text": "b", "n": 0.5, "translation": "b", "error": None}


def test_a_file_without_rows(tmp_path: Path) -> None:
    full, empty = write(tmp_path / "a.jsonl", rows(2)), write(tmp_path / "b.jsonl", [])
    found = layout([full, empty], None, NEW, "parquet")
    with writing(tmp_path / "out.parquet", found):
        pass
    assert counted(tmp_path / "out.parquet") == (0, 0)
    assert parquet.read_table(tmp_path / "out.parquet").schema.names == ["id", "text", "tags", "translation", "error"]


def test_what_is_half_written_is_not_there(tmp_path: Path) -> None:
    found = layout([write(tmp_path / "a.jsonl", rows(2))], None, NEW, "parquet")
    # The result has no such column.
    with pytest.raises(KeyError), writing(tmp_path / "out.parquet", found) as sink:
        sink.write(Chunk([{}]), {"nothing": ["x"]})
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


@given(st.lists(st.sampled_from(["fine", "bad", "", "  ", None, 5]), max_size=40))
def test_a_bad_row_fails_alone(texts: list[Any]) -> None:
    """All others are answered as they would be without it, and few calls are made for it."""
    calls: list[int] = []

    def answer(asked: Any, first: int) -> list[tuple[str]]:
        calls.append(len(asked))
        if "bad" in asked:
            raise InputError("text 1 is bad", "Mend it.")
        return [(f"{text}!",) for text in asked]

    found = answers(answer, texts, 0)
    want = {"fine": ("fine!",), "bad": "text 1 is bad. Mend it."}
    for text, one in zip(texts, found, strict=True):
        assert one == want[text] if text in want else isinstance(one, str)
    bad = texts.count("bad")
    assert len(calls) <= 1 + 2 * bad * max(1, math.ceil(math.log2(len(texts) + 1)))


def test_a_fault_of_the_program_is_no_fault_of_a_row() -> None:
    def answer(asked: Any, first: int) -> list[tuple[str]]:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        answers(answer, ["a", "b"], 0)
