"""Texts with labels: from columns, JSON lines, or a named corpus."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sublayer.config import LabelledJsonl, LabelledTsv, NamedCorpus
from sublayer.data import corpora
from sublayer.data.corpora import Corpus, Part
from sublayer.data.download import Progress
from sublayer.data.jsonl import text_of, value_of
from sublayer.data.tables.table import Reader, Rows, collect, collect_plain
from sublayer.errors import DataError
from sublayer.text.lines import cell, read_lines


@dataclass(frozen=True)
class Labelled:
    """A text, perhaps a second one that belongs to it, and their label."""

    text: str
    label: str
    second: str | None = None

    @property
    def text_key(self) -> str:
        return self.text if self.second is None else f"{self.text}\n{self.second}"

    @property
    def plain(self) -> dict[str, str]:
        second = {} if self.second is None else {"second": self.second}
        return {"text": self.text, **second, "label": self.label}

    def spelled(self, *, ends: bool) -> Iterator[str]:
        yield self.text
        if self.second is not None:
            yield self.second


def read_labelled(
    source: LabelledTsv | LabelledJsonl | NamedCorpus, folder: Path, progress: Progress | None = None
) -> Rows[Labelled]:
    """All labelled texts of `source`, in the order of the file; those without text or label are left out and counted.

    Raises:
        DataError: a file is missing, not UTF-8, empty, lacks a column or field, or the corpus is of another kind.
    """
    match source:
        case NamedCorpus():
            row = corpora.find(source.name)
            row.require("labelled", source.part)
            path = corpora.fetch(source.name, progress)
            return collect(_corpus(path, row, source.part), path, "texts")
        case LabelledTsv():
            path = folder / source.path
            return collect(_tsv(path, source), path, "texts")
        case LabelledJsonl():
            path = folder / source.path
            return collect_plain(path, partial(_object, source), "texts")


def _row(text: str, label: str, second: str | None = None) -> Labelled | str:
    text, label = text.strip(), label.strip()
    second = None if second is None else second.strip()
    if not text or second == "":
        return "empty text"
    return Labelled(text, label, second) if label else "empty label"


def _tsv(path: Path, source: LabelledTsv) -> Iterator[tuple[int, Labelled | str]]:
    for number, line in enumerate(read_lines(path), start=1):
        if number == 1 and source.header:
            continue
        if not line.strip():
            yield number, "blank line"
            continue
        columns = line.split("\t")
        text = cell(columns, source.text_column, "text_column", path, number)
        label = cell(columns, source.label_column, "label_column", path, number)
        place = source.second_column
        second = None if place is None else cell(columns, place, "second_column", path, number)
        yield number, _row(text, label, second)


def _object(source: LabelledJsonl, table: dict[str, Any], where: str) -> Labelled | str:
    remedy = "Set text_field, second_field and label_field."
    label = value_of(table, source.label_field, where, remedy)
    # A whole number is a label too (true is not one: JSON's, and Python's, is another kind of thing).
    if not isinstance(label, str) and (not isinstance(label, int) or isinstance(label, bool)):
        raise DataError(
            f"{where}: field '{source.label_field}' is {label!r}, not a string or a whole number", "Write a label."
        )
    second = None if source.second_field is None else text_of(table, source.second_field, where, remedy)
    return _row(text_of(table, source.text_field, where, remedy), str(label), second)


def _corpus(path: Path, corpus: Corpus, part: Part | None) -> Iterator[tuple[int, Labelled | str]]:
    """The rows of a corpus in comma-separated columns with a header, as its row in the table says."""
    columns = corpus.columns
    assert columns is not None, f"{corpus.name} says nothing of its columns"
    kept = 0
    wanted = corpus.rows_of(part)
    with path.open(encoding="utf-8", newline="") as handle:
        reader = csv.DictReader(handle)
        for row in reader:
            if columns.only is not None and row[columns.only[0]] != columns.only[1]:
                continue
            if any(kept in rows for rows in wanted):
                yield reader.line_num, _row(row[columns.text], columns.labels[int(row[columns.label])])
            kept += 1


def _plain(table: dict[str, Any], where: str) -> Labelled:
    """What `Labelled.plain` gave."""
    remedy = 'Write {"text": "...", "label": "..."}.'
    second = text_of(table, "second", where, remedy) if "second" in table else None
    return Labelled(text_of(table, "text", where, remedy), str(value_of(table, "label", where, remedy)), second)


LABELLED_TEXTS = Reader(read_labelled, partial(collect_plain, row=_plain, noun="texts"))
