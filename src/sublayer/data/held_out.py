"""Text that a model is judged on: the held-out rows of a model folder, or a user's own file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from sublayer import config
from sublayer.data.jsonl import read_objects, text_of, value_of
from sublayer.data.report import Report
from sublayer.data.sources import Pairs
from sublayer.data.split import grouped
from sublayer.data.tables.conversations import Conversation, read_conversations
from sublayer.data.tables.documents import Document
from sublayer.data.tables.labelled import Labelled
from sublayer.data.tables.table import collect
from sublayer.data.tables.tagged import Tagged
from sublayer.data.tasks import AnyTable, reader
from sublayer.errors import DataError
from sublayer.untrusted import to_json

RowT = TypeVar("RowT", Document, Labelled, Tagged, Conversation)

SOURCES: Mapping[str, type[Any]] = {
    ".tsv": config.LabelledTsv,
    ".conll": config.Conll,
    ".txt": config.PlainText,
    "": config.PlainText,
}
"""What a file is read as, by the end of its name, where it is not JSON lines."""


def plain_rows(table: AnyTable) -> list[Mapping[str, Any]]:
    """The rows as plain values, one JSON object each; of pairs each source once, with all its translations."""
    if isinstance(table, Pairs):
        return [{"source": source, "references": several} for source, several in zip(*grouped(table), strict=True)]
    return [row.plain for row in table]


def write_rows(table: AnyTable) -> str:
    """`plain_rows` as JSON lines."""
    return "".join(to_json(row) + "\n" for row in plain_rows(table))


def read_rows(task: config.Task, path: Path) -> AnyTable:
    """What `write_rows` wrote, or a file of the kind that the task is trained on: .jsonl, .tsv, .conll or plain text.

    Raises:
        DataError: the file is missing or without rows, or a row is not what the task asks of.
    """
    if not path.is_file():
        raise DataError(f"there is no {path}", "Name a file of text to judge the model on: --data FILE.")
    if path.suffix == ".jsonl":
        return _read_objects(task, path)
    source = config.Tsv if path.suffix == ".tsv" and "tsv" in task.sources else SOURCES.get(path.suffix)
    if source is None or source.model_fields["type"].default not in task.sources:
        known = ", ".join(sorted({f".{kind}" for kind in _suffixes(task)}))
        raise DataError(f"{path} is not what a model for the task '{task.type}' is judged on", f"Give it {known}.")
    made: dict[str, Any] = {"document": "file"} if source is config.PlainText else {}
    return reader(task)(source(path=path.name, **made), path.parent)


def _suffixes(task: config.Task) -> Iterator[str]:
    yield "jsonl"
    for end, source in (("tsv", "tsv"), ("tsv", "labelled-tsv"), ("conll", "conll"), ("txt", "text")):
        if source in task.sources:
            yield end


def _read_objects(task: config.Task, path: Path) -> AnyTable:
    match task:
        case config.TranslationTask() | config.EmbeddingTask():
            return _pairs(path)
        case config.InstructionsTask():
            return read_conversations(config.Chat(path=path.name), path.parent)
        case config.TaggingTask():
            return collect(_each(path, _tagged), path, "sentences")
        case config.ClassificationTask():
            return collect(_each(path, _labelled), path, "texts")
        case _:
            return collect(_each(path, _document), path, "documents")


def _each(path: Path, row: Callable[[dict[str, Any], str], RowT]) -> Iterator[tuple[int, RowT | str]]:
    for number, table in read_objects(path):
        yield number, "blank line" if table is None else row(table, f"{path}, line {number}")


def _document(table: dict[str, Any], where: str) -> Document:
    return Document(text_of(table, "text", where, 'Write {"text": "..."}.'))


def _labelled(table: dict[str, Any], where: str) -> Labelled:
    remedy = 'Write {"text": "...", "label": "..."}.'
    second = text_of(table, "second", where, remedy) if "second" in table else None
    return Labelled(text_of(table, "text", where, remedy), str(value_of(table, "label", where, remedy)), second)


def _tagged(table: dict[str, Any], where: str) -> Tagged:
    remedy = 'Write {"words": ["..."], "tags": ["..."]}, a tag for each word.'
    words, tags = (value_of(table, name, where, remedy) for name in ("words", "tags"))
    if not isinstance(words, list) or not isinstance(tags, list) or len(words) != len(tags):  # pyright: ignore[reportUnknownArgumentType]
        raise DataError(f"{where}: words and tags are not lists of equal length", remedy)
    return Tagged(tuple(map(str, cast("list[Any]", words))), tuple(map(str, cast("list[Any]", tags))))


def _pairs(path: Path) -> Pairs:
    remedy = 'Write {"source": "...", "references": ["..."]}.'
    sources: list[str] = []
    targets: list[str] = []
    lines: list[int] = []
    for number, table in read_objects(path):
        if table is None:
            continue
        where = f"{path}, line {number}"
        source, several = text_of(table, "source", where, remedy), value_of(table, "references", where, remedy)
        if not isinstance(several, list) or not several:
            raise DataError(f"{where}: references is not a filled list", remedy)
        for target in cast("list[Any]", several):
            sources.append(source)
            targets.append(str(target))
            lines.append(number)
    if not sources:
        raise DataError(f"{path} has no sentences", remedy)
    return Pairs(sources, targets, Report(len(sources), len(sources)), lines)
