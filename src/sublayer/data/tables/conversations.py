"""Conversations: JSON lines of messages, each of a role."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sublayer.config import Chat
from sublayer.data.jsonl import read_objects, text_of, value_of
from sublayer.data.tables.table import Rows, collect
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


def read_conversations(source: Chat, folder: Path) -> Rows[Conversation]:
    """All conversations of `source`; those without an answer are left out and counted.

    Raises:
        DataError: the file is missing, empty, not UTF-8, or a line is not {"messages": [{"role", "content"}, ...]}.
    """
    path = folder / source.path
    return collect(_conversations(path), path, "conversations")


def _conversations(path: Path) -> Iterator[tuple[int, Conversation | str]]:
    remedy = 'Write {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}.'
    for number, table in read_objects(path):
        if table is None:
            yield number, "blank line"
            continue
        where = f"{path}, line {number}"
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
        yield number, Conversation(tuple(messages)) if answered else "without an answer"
