"""The end of a text held out: nothing is lost, nothing is out of order, and documents are cut to the character."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublayer.config import PlainText, TailSplit
from sublayer.data.report import Report
from sublayer.data.sources import Pairs
from sublayer.data.split import split
from sublayer.data.tables.documents import Document, read_documents
from sublayer.data.tables.table import Rows
from sublayer.errors import DataError

HERE = Path()


def documents(texts: list[str]) -> Rows[Document]:
    return Rows([Document(text) for text in texts], Report(len(texts), len(texts), noun="documents"))


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6), how=st.tuples(st.integers(1, 9), st.integers(1, 9))
)
def test_parts_of_documents_are_the_text_in_order(lengths: list[int], how: tuple[int, int]) -> None:
    # Characters that never repeat: where each is in the whole is known.
    whole = "".join(chr(0x4E00 + n) for n in range(sum(lengths)))
    texts, begin = [], 0
    for length in lengths:
        texts.append(whole[begin : begin + length])
        begin += length
    validation, test = how[0] / 20, how[1] / 20
    counts = [round(len(whole) * (validation + test)), round(len(whole) * test)]
    if counts[1] == 0 or counts[0] == counts[1] or counts[0] == len(whole):
        with pytest.raises(DataError, match="leave nothing to"):
            split(documents(texts), TailSplit(validation=validation, test=test), HERE)
        return
    found = split(documents(texts), TailSplit(validation=validation, test=test), HERE)
    parts = ["".join(part.texts()) for part in (found.train, found.validation, found.test)]
    assert "".join(parts) == whole
    assert len(parts[2]) == counts[1]
    assert len(parts[1]) + len(parts[2]) == counts[0]
    report = found.train.report
    assert report.kept == len(found.train)
    assert report.read == report.kept + sum(each.count for each in report.dropped)


def test_one_file_is_cut_as_nanogpt_cuts_it(tmp_path: Path) -> None:
    text = "".join(f"line {n}\n" for n in range(1000)).rstrip("\n")
    (tmp_path / "input.txt").write_text(text, encoding="utf-8")
    table = read_documents(PlainText(path="input.txt", document="file"), tmp_path)
    found = split(table, TailSplit(), tmp_path)
    assert found.train.texts() == [text[: len(text) - round(len(text) * 0.1)]]
    assert "".join([*found.validation.texts(), *found.test.texts()]) == text[len(text) - round(len(text) * 0.1) :]
    assert found.test.lines == [1 + text[: -len(found.test.texts()[0])].count("\n")]


def test_pairs_stay_whole_and_what_is_held_out_is_not_trained_on() -> None:
    sources = [f"s{n}" for n in range(18)] + ["S3", "new"]
    pairs = Pairs([(each, each.upper()) for each in sources], Report(20, 20), list(range(1, 21)))
    found = split(pairs, TailSplit(validation=0.1, test=0.1), HERE)
    assert found.test.sources == ["S3", "new"]
    assert found.train.sources == [each for each in sources[: len(found.train.sources) + 1] if each != "s3"]
    assert [*found.train.sources, *found.validation.sources, *found.test.sources] == [s for s in sources if s != "s3"]
