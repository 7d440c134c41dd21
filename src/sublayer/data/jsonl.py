"""JSON lines, read one at a time, with errors that name the line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

from sublayer.errors import DataError
from sublayer.text.lines import WHOLE, Span, read_lines
from sublayer.untrusted import UntrustedError, parse_json

R = TypeVar("R")


def read_objects(path: Path, span: Span = WHOLE) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Each line's number, from 1, and its object; None where the line is blank. span: the lines that are wanted.

    Raises:
        DataError: a line is not JSON, or not an object.
    """
    for number, line in enumerate(read_lines(path, span), start=span.first):
        if not line.strip():
            yield number, None
            continue
        try:
            item: Any = parse_json(line)
        except UntrustedError as error:
            raise DataError(f"{path}, line {number}: it {error}", "One plain object a line.") from None
        if not isinstance(item, dict):
            raise DataError(f"{path}, line {number}: not an object but {line[:40]!r}", "One object a line.")
        yield number, cast("dict[str, Any]", item)


def read_rows(
    path: Path, row: Callable[[dict[str, Any], str], R], span: Span = WHOLE
) -> Iterator[tuple[int, R | None]]:
    """As `read_objects`, with what `row` makes of each object and of the place where it stands."""
    for number, table in read_objects(path, span):
        yield number, None if table is None else row(table, f"{path}, line {number}")


def text_of(table: dict[str, Any], name: str, where: str, remedy: str) -> str:
    """The text in the field `name`.

    Args:
        where: the place, for the message. remedy: what to do where there is no such field.

    Raises:
        DataError: there is no such field, or it is not text.
    """
    value = value_of(table, name, where, remedy)
    if not isinstance(value, str):
        raise DataError(f"{where}: field '{name}' is {value!r}, not a string", "Write text in quotes.")
    return value


def value_of(table: dict[str, Any], name: str, where: str, remedy: str) -> Any:
    """What stands in the field `name`.

    Raises:
        DataError: there is no such field.
    """
    if name not in table:
        found = ", ".join(table) or "none"
        raise DataError(f"{where}: no field '{name}' (fields: {found})", remedy)
    return table[name]
