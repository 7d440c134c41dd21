"""Plain text as documents: a line each, a file each, between blank lines, articles under their headings, or fields of
JSON lines and Parquet."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from sublayer.config import NamedCorpus, PlainText, SeveralCorpora, TextJsonl, TextParquet
from sublayer.data import corpora, sources
from sublayer.data.download import Progress
from sublayer.data.jsonl import read_rows, text_of
from sublayer.data.parquet import read_columns, row_groups
from sublayer.data.portions import Found, Portion, Stream, TextRow, files, in_lines
from sublayer.data.report import Report
from sublayer.data.tables.labelled import read_labelled
from sublayer.data.tables.table import Reader, Rows, collect_plain, gathered
from sublayer.errors import DataError
from sublayer.text.lines import WHOLE, Span, read_lines

# The title of an article: " = Title = "; sections have more signs.
HEADING = re.compile(r" ?= (?!= ).*[^=] = ?")


@dataclass(frozen=True)
class Document:
    """A text, as it stands in its file."""

    text: str

    @property
    def text_key(self) -> str:
        return self.text

    @property
    def words(self) -> int:
        """Words between white space and ends of lines, each of which counts as one: what a word-level perplexity is
        divided by. The end of a document that ends within a line ends that line."""
        return len(self.text.split()) + self.text.count("\n") + (0 if self.text.endswith("\n") else 1)

    @property
    def plain(self) -> dict[str, str]:
        return {"text": self.text}

    def spelled(self, *, ends: bool) -> Iterator[str]:
        """Line by line: no word reaches over the end of a line."""
        *lines, last = self.text.split("\n")
        yield from (f"{line}\n" for line in lines) if ends else lines
        yield last


_Read = PlainText | TextJsonl | TextParquet
_Source = _Read | NamedCorpus | SeveralCorpora


def read_documents(source: _Source, folder: Path, progress: Progress | None = None) -> Rows[Document]:
    """All documents of `source`, in the order of the file, empty ones left out and counted.

    Of a corpus of labelled texts these are the texts, of one of pairs the source sentences, each once.

    Args:
        folder: relative paths start here. progress: called while a named corpus is fetched.

    Raises:
        DataError: a file is missing, not UTF-8 or without text, or there is no such corpus or part.
    """
    if isinstance(source, SeveralCorpora):
        return _joined([read_documents(corpus, folder, progress) for corpus in source.corpora])
    if isinstance(source, NamedCorpus):
        match corpora.find(source.name).kind:
            case "labelled":
                labelled = read_labelled(source, folder, progress)
                report = replace(labelled.report, noun="documents")
                return Rows([Document(row.text) for row in labelled], report, labelled.lines)
            case "parallel":
                pairs = sources.read(source, folder, progress)
                texts = dict.fromkeys(pairs.sources)
                report = replace(pairs.report, noun="documents").leave_out("repeated", [], len(pairs) - len(texts))
                return Rows([Document(text) for text in texts], report)
            case "text":
                pass
    portions = cut(source, folder, None, progress)
    found = chain.from_iterable(read_portion(source, portion) for portion in portions)
    return table(*gathered(found, portions[0].paths[0], "documents"))


def cut(source: _Source, folder: Path, lines: int | None, progress: Progress | None = None) -> list[Portion]:
    """The portions of `source`, as in `Stream`; raises as `read_documents`."""
    match source:
        case NamedCorpus():
            corpora.find(source.name).require("text", source.part)
            return in_lines(corpora.fetch_parts(source.name, source.part, progress), None)
        case SeveralCorpora():
            raise DataError("several corpora are small text, which is not read in portions", "Name one corpus.")
        case PlainText():
            path = folder / source.path
            found = sorted(path.glob("*.txt")) if path.is_dir() else files(path)
            if not found:
                raise DataError(f"{path} is a folder without .txt files", "Name a text file or a folder of them.")
            return in_lines(found, lines if source.document == "line" else None)
        case TextJsonl():
            return in_lines(files(folder / source.path), lines)
        case TextParquet():
            return row_groups(folder / source.path)


def read_portion(source: _Read | NamedCorpus, portion: Portion) -> Found:
    """The rows of a portion of `source`; raises as `read_documents`."""
    path, span = portion.paths[0], portion.spans[0]
    match source:
        case PlainText():
            found = _FORMS[source.document](path, span)
        case NamedCorpus():
            found = _articles(path, span)
        case TextJsonl():

            def row(table: dict[str, Any], where: str) -> str:
                return text_of(table, source.text_field, where, "Set text_field.")

            found = read_rows(path, row, span)
        case TextParquet():
            found = ((number, text) for number, (text,) in read_columns(portion, [source.text_column]))
    for number, text in found:
        yield number, (text,) if text and text.strip() else "empty"


def table(rows: Sequence[TextRow], report: Report, lines: Sequence[int] = ()) -> Rows[Document]:
    """Documents of these texts."""
    return Rows([Document(text) for (text,) in rows], report, list(lines))


def _joined(tables: list[Rows[Document]]) -> Rows[Document]:
    """One table of several; lines of different files say nothing together."""
    report = Report(
        read=sum(table.report.read for table in tables),
        kept=sum(table.report.kept for table in tables),
        dropped=tuple(replace(dropped, lines=()) for table in tables for dropped in table.report.dropped),
        noun="documents",
    )
    return Rows([row for table in tables for row in table], report)


def cut_documents(table: Rows[Document], places: Sequence[int]) -> Rows[Document]:
    """The same text, with a document cut in two where one of `places` is inside it.

    Args:
        places: characters, counted from the first of all documents one after the other; rising.
    """
    rows: list[Document] = []
    lines: list[int] = []
    begin = 0
    for number, document in enumerate(table):
        text, first = document.text, table.lines[number] if table.lines else 0
        inside = [place - begin for place in places if begin < place < begin + len(text)]
        for one, other in pairwise([0, *inside, len(text)]):
            rows.append(Document(text[one:other]))
            lines.append(first + text.count("\n", 0, one))
        begin += len(text)
    more = len(rows) - len(table)
    report = replace(table.report, read=table.report.read + more, kept=table.report.kept + more)
    return Rows(rows, report, lines if table.lines else [])


_Text = Iterator[tuple[int, str]]


def _lines(path: Path, span: Span) -> _Text:
    return enumerate(read_lines(path, span), start=span.first)


def _whole(path: Path, span: Span) -> _Text:
    yield 1, "\n".join(read_lines(path, span))


def _paragraphs(path: Path, span: Span) -> _Text:
    first, lines = 1, list[str]()
    for number, line in enumerate(read_lines(path, span), start=1):
        if line.strip():
            first = first if lines else number
            lines.append(line)
        elif lines:
            yield first, "\n".join(lines)
            lines = []
    if lines:
        yield first, "\n".join(lines)


def _articles(path: Path, span: Span = WHOLE) -> _Text:
    """From one heading to the next; a heading stands between blank lines, because an article too may have such a line.

    Nothing is taken away, so that the documents, one after the other, are the file.
    """
    lines = list(read_lines(path, span))
    blank = [not line.strip() for line in lines]
    starts = [
        place
        for place, line in enumerate(lines)
        if HEADING.fullmatch(line)
        and (place == 0 or blank[place - 1])
        and (place + 1 == len(lines) or blank[place + 1])
    ]
    if not starts and any(line.strip() for line in lines):
        raise DataError(f"{path} has no heading such as ' = Title = '", "Choose another data.source.document.")
    # What stands before the first heading (a blank line) belongs to the first article.
    bounds = [0, *starts[1:], len(lines)]
    for begin, end in pairwise(bounds):
        yield begin + 1, "".join(f"{line}\n" for line in lines[begin:end])


_FORMS: Mapping[str, Callable[[Path, Span], _Text]] = {
    "line": _lines,
    "blank-lines": _paragraphs,
    "file": _whole,
    "wikitext": _articles,
}


def _plain(table: dict[str, Any], where: str) -> Document:
    """What `Document.plain` gave."""
    return Document(text_of(table, "text", where, 'Write {"text": "..."}.'))


DOCUMENTS = Reader(
    read_documents,
    partial(collect_plain, row=_plain, noun="documents"),
    Stream(("text",), cut, read_portion, table),
)
