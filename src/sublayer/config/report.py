"""Every problem of a bad configuration tree on one line, each at the path as the user wrote it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from sublayer.config.shape import Shape, field_shape
from sublayer.errors import nearest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# pydantic's name of an error -> what the user should have written; braces are filled from the error's context.
SHOULD = {
    "int_type": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_type": "should be a number",
    "finite_number": "should be a finite number",
    "bool_type": "should be true or false",
    "string_type": "should be a string",
    "model_type": "should be a table",
    "model_attributes_type": "should be a table",
    "dict_type": "should be a table",
    "tuple_type": "should be a list",
    "too_long": "should have {max_length} values, not {actual_length}",
    "greater_than": "should be more than {gt}",
    "greater_than_equal": "should be {ge} or more",
    "less_than": "should be less than {lt}",
    "less_than_equal": "should be {le} or less",
    "string_pattern_mismatch": "should match {pattern}",
}
LONGEST = 60


def report(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """The problems that `error` holds about a tree of type `root`: "path: what is wrong", in the tree's order."""
    return [_problem(item, root) for item in error.errors(include_url=False)]


def _problem(item: ErrorDetails, root: type[BaseModel]) -> str:
    path, parent, shape = locate(item["loc"], root)
    kind, context, given = item["type"], item.get("ctx", {}), item["input"]
    where = ".".join(path)
    if kind == "extra_forbidden":
        return f"{where}: unknown key{_suggestion(path[-1], parent.model_fields if parent else ())}"
    if kind == "missing":
        return f"{where}: missing"
    if kind == "union_tag_not_found":
        return f"{where}.{shape.tag}: missing{_suggestion('', shape.variants)}"
    if kind == "union_tag_invalid":
        given = context.get("tag", given)
        return f"{where}.{shape.tag}: unknown {shape.tag} {_shown(given)}{_suggestion(str(given), shape.variants)}"
    if kind == "literal_error":
        return f"{where}: cannot be {_shown(given)}{_suggestion(str(given), shape.words)}"
    if kind == "value_error":
        # Raised by our own validators, whose sentence names the values.
        message = item["msg"].removeprefix("Value error, ").rstrip(".")
    else:
        message = SHOULD[kind].format(**context) if kind in SHOULD else item["msg"]
        message += "" if kind == "too_long" else f" (given: {_shown(given)})"
    return f"{where}: {message}" if where else message


def locate(location: Sequence[int | str], root: type[BaseModel]) -> tuple[list[str], type[BaseModel] | None, Shape]:
    """The path as the user wrote it, the node that holds its last key, and what may stand there.

    pydantic's location names the chosen variant after the key of a union, which no user writes; walking the
    annotations beside the location tells such a tag from a key of the same name.
    """
    path: list[str] = []
    parent: type[BaseModel] | None = None
    shape = Shape(parts=(root,))
    for step in location:
        if variant := shape.variants.get(str(step)):
            shape = Shape(parts=(variant,))
            continue
        path.append(str(step))
        parent = shape.parts[0] if len(shape.parts) == 1 else None
        if parent is not None:
            shape = field_shape(parent, str(step))
        elif isinstance(step, int):
            shape = shape.item(step)
        else:
            shape = Shape()
    return path, parent, shape


def _suggestion(name: str, known: Iterable[str]) -> str:
    """What follows the problem: `; did you mean 'warmup'?`, or `; known: ...` where nothing is near."""
    said = nearest(name, known).rstrip(".")
    return f"; {said[0].lower()}{said[1:]}" if said else ""


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    # A list is shown as TOML has it; validation knows tuples.
    text = repr(list(value) if isinstance(value, tuple) else value)  # pyright: ignore[reportUnknownArgumentType]
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
