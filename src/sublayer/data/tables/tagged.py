"""Sentences of tagged words, in CoNLL's columns (Tjong Kim Sang and De Meulder 2003)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from sublayer.config import Conll
from sublayer.data.jsonl import value_of
from sublayer.data.tables.table import Reader, Rows, collect, collect_plain
from sublayer.errors import DataError
from sublayer.text.lines import cell, columns, read_lines

DOCUMENT = "-DOCSTART-"
BETWEEN = "tabs (or, in a line without any, spaces)"


@dataclass(frozen=True)
class Tagged:
    """The words of a sentence, and a tag for each."""

    words: tuple[str, ...]
    tags: tuple[str, ...]

    @property
    def text_key(self) -> str:
        return " ".join(self.words)

    @property
    def plain(self) -> dict[str, list[str]]:
        return {"words": list(self.words), "tags": list(self.tags)}

    def spelled(self, *, ends: bool) -> Iterator[str]:
        yield self.text_key


def read_tagged(source: Conll, folder: Path) -> Rows[Tagged]:
    """All sentences of `source`.

    Raises:
        DataError: the file is missing, not UTF-8 or without sentences, or a line lacks a column.
    """
    path = folder / source.path
    return collect(_sentences(path, source), path, "sentences")


def _sentences(path: Path, source: Conll) -> Iterator[tuple[int, Tagged | str]]:
    first, words, tags = 1, list[str](), list[str]()
    for number, line in enumerate(read_lines(path), start=1):
        found = columns(line)
        if found and found[0] != DOCUMENT:
            first = first if words else number
            words.append(cell(found, source.word_column, "word_column", path, number, BETWEEN))
            tags.append(cell(found, source.tag_column, "tag_column", path, number, BETWEEN))
        elif words:
            yield first, Tagged(tuple(words), tuple(tags))
            words, tags = [], []
    if words:
        yield first, Tagged(tuple(words), tuple(tags))


def _plain(table: dict[str, Any], where: str) -> Tagged:
    """What `Tagged.plain` gave."""
    remedy = 'Write {"words": ["..."], "tags": ["..."]}, a tag for each word.'
    words, tags = (value_of(table, name, where, remedy) for name in ("words", "tags"))
    if not isinstance(words, list) or not isinstance(tags, list) or len(words) != len(tags):  # pyright: ignore[reportUnknownArgumentType]
        raise DataError(f"{where}: words and tags are not lists of equal length", remedy)
    return Tagged(tuple(map(str, cast("list[Any]", words))), tuple(map(str, cast("list[Any]", tags))))


TAGGED_SENTENCES = Reader(read_tagged, partial(collect_plain, row=_plain, noun="sentences"))
