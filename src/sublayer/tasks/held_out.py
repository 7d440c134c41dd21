"""Text that was held out: the rows of a model folder, or a user's own file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from sublayer import config
from sublayer.data.tables.table import Table
from sublayer.errors import DataError
from sublayer.tasks.task import AnyTask, Task
from sublayer.untrusted import to_json

T = TypeVar("T", bound=Table[Any])

SOURCES: Mapping[str, tuple[type[Any], ...]] = {
    ".tsv": (config.Tsv, config.LabelledTsv),
    ".conll": (config.Conll,),
    ".txt": (config.PlainText,),
    "": (config.PlainText,),
}
"""What a file is read as, by the end of its name, where it is not JSON lines."""


def write_rows(table: Table[Any]) -> str:
    """The rows as JSON lines."""
    return "".join(to_json(row) + "\n" for row in table.plain_rows())


def read_rows(task: Task[Any, T, Any], path: Path) -> T:
    """What `write_rows` wrote, or a file of the kind that the task is trained on: .jsonl, .tsv, .conll or plain text.

    Raises:
        DataError: the file is missing or without rows, or a row is not what the task asks of.
    """
    if not path.is_file():
        raise DataError(f"there is no {path}", "Give --data FILE: text to evaluate the model on.")
    if path.suffix == ".jsonl":
        return task.read_plain(path)
    source = _source(task, path.suffix)
    if source is None:
        suffixes = ", ".join(sorted([".jsonl", *(end for end in SOURCES if end and _source(task, end))]))
        raise DataError(
            f"{path} is not what a model for the task '{task.name()}' is evaluated on", f"Give it {suffixes}."
        )
    made: dict[str, Any] = {"document": "file"} if source is config.PlainText else {}
    return task.read(source(path=path.name, **made), path.parent)


def _source(task: AnyTask, end: str) -> type[Any] | None:
    """What a file with that end is read as for `task`."""
    known = task.settings.sources
    return next((source for source in SOURCES.get(end, ()) if source.model_fields["type"].default in known), None)
