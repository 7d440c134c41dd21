"""Conversations: JSON lines of messages, each of a role, or rows of other text with a template for each message."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from sublayer.config import Chat, LabelledJsonl, LabelledTsv, Messages, NamedCorpus, Source
from sublayer.config.task import fields_of
from sublayer.data import corpora, sources
from sublayer.data.jsonl import text_of, value_of
from sublayer.data.report import Report
from sublayer.data.tables.labelled import read_labelled
from sublayer.data.tables.table import Rows, collect_plain
from sublayer.errors import DataError, nearest

ROLES = ("system", "user", "assistant")
ANSWERS = "assistant"


@dataclass(frozen=True)
class Message:
    """What one side says. role: one of `ROLES`."""

    role: str
    content: str


@dataclass(frozen=True)
class Conversation:
    """Messages in their order, at least one of them the assistant's."""

    messages: tuple[Message, ...]

    @property
    def text_key(self) -> str:
        """All that is said before the first answer: the same question in training and test would be no test."""
        asked: list[str] = []
        for message in self.messages:
            if message.role == ANSWERS:
                break
            asked.append(message.content)
        return "\n".join(asked)

    @property
    def plain(self) -> dict[str, list[dict[str, str]]]:
        return {"messages": [{"role": message.role, "content": message.content} for message in self.messages]}

    def spelled(self, *, ends: bool) -> Iterator[str]:
        for message in self.messages:
            yield from (f"{message.role}\n", message.content)


def read_conversations(source: Source, folder: Path, made: Messages | None = None) -> Rows[Conversation]:
    """All conversations of `source`; those without an answer are left out and counted.

    Args:
        made: what conversations are made of, where the source is labelled or parallel text.

    Raises:
        DataError: the file is missing, empty, not UTF-8, or a line is not {"messages": [{"role", "content"}, ...]}; or
            `made` names a field that the rows have not.
    """
    if isinstance(source, Chat):
        path = folder / source.path
        return collect_plain(path, _conversation, "conversations")
    assert made is not None, "the recipe has been checked"
    rows, report, lines = _fields(source, folder)
    templates = {name: template for name in ROLES if (template := getattr(made, name)) is not None}
    for name, template in templates.items():
        missing = [field for field in fields_of(template) if any(field not in row for row in rows)]
        if missing:
            there = ", ".join(f"{{{field}}}" for field in rows[0])
            raise DataError(f"task.messages.{name}: rows of this text have no {{{missing[0]}}}", f"There are {there}.")
    talks = [
        Conversation(tuple(Message(name, template.format_map(row)) for name, template in templates.items()))
        for row in rows
    ]
    return Rows(talks, replace(report, noun="conversations"), lines)


def _fields(source: Any, folder: Path) -> tuple[list[dict[str, str]], Report, list[int]]:
    """Rows of labelled or parallel text, whichever the source has, as fields by name; their report and lines."""
    labelled = isinstance(source, LabelledTsv | LabelledJsonl)
    if isinstance(source, NamedCorpus):
        labelled = corpora.find(source.name).kind == "labelled"
    if labelled:
        table = read_labelled(source, folder)
        return [row.plain for row in table], table.report, table.lines
    pairs = sources.read(source, folder)
    return [{"source": source, "target": target} for source, target in pairs], pairs.report, pairs.lines


def _conversation(table: dict[str, Any], where: str) -> Conversation | str:
    remedy = 'Write {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}.'
    said: Any = value_of(table, "messages", where, remedy)
    if not isinstance(said, list):
        raise DataError(f"{where}: field 'messages' is not a list", remedy)
    messages: list[Message] = []
    for place, one in enumerate(cast("list[Any]", said), start=1):
        here = f"{where}, message {place}"
        if not isinstance(one, dict):
            raise DataError(f"{here}: not an object", remedy)
        message = cast("dict[str, Any]", one)
        role = text_of(message, "role", here, remedy)
        if role not in ROLES:
            raise DataError(f"{here}: no role is called '{role}'", nearest(role, ROLES))
        messages.append(Message(role, text_of(message, "content", here, remedy)))
    answered = any(message.role == ANSWERS and message.content for message in messages)
    return Conversation(tuple(messages)) if answered else "without an answer"
