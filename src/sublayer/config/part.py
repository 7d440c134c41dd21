"""The base of every node in the configuration tree, and how a bad tree is reported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Self, cast

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from sublayer.errors import ConfigError, nearest


class Part(BaseModel):
    """A frozen node: typed strictly, compared by value, unknown keys refused with the nearest known name."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            keys = [str(key) for key in cast("dict[Any, Any]", data)]
            unknown = [key for key in keys if key not in cls.model_fields]
            if unknown:
                said = " ".join(f"unknown key '{key}'. {nearest(key, cls.model_fields)}" for key in unknown)
                # Braces would be read as the template's own fields.
                raise PydanticCustomError("unknown_key", "{said}", {"said": said})
        return data

    @classmethod
    def parse(cls, data: Mapping[str, Any], where: str) -> Self:
        """The tree from plain data, or one `ConfigError` that names every problem.

        Args:
            data: nested mappings, lists and scalars, as TOML or JSON give them.
            where: what the data is, for the message (a file's name, say).
        """
        try:
            # Through JSON, because strict validation of JSON takes a list for a tuple and still refuses "5" for 5.
            return cls.model_validate_json(json.dumps(data))
        except ValidationError as error:
            raise ConfigError(_report(error, data, where)) from None
        except TypeError as error:
            raise ConfigError(f"{where}: {error}", "Use strings, numbers, booleans, lists and tables only.") from None

    def plain(self) -> dict[str, Any]:
        """The tree as nested dicts, lists and scalars, ready for JSON or TOML."""
        return self.model_dump(mode="json")


def _report(error: ValidationError, data: Mapping[str, Any], where: str) -> str:
    problems: list[str] = []
    for item in error.errors(include_url=False):
        path = _path(item["loc"], data)
        message = item["msg"].removeprefix("Value error, ")
        given = item["input"]
        shown = "" if isinstance(given, dict | list) or item["type"] == "missing" else f" (given: {given!r})"
        problems.append(f"{path}: {message}{shown}" if path else f"{message}{shown}")
    return f"{where}: " + "; ".join(problems)


def _path(location: tuple[int | str, ...], data: Any) -> str:
    """The dotted path as the user wrote it: pydantic puts the chosen variant's name between, which is left out."""
    shown: list[str] = []
    here = data
    for index, key in enumerate(location):
        if isinstance(here, Mapping):
            table = cast("Mapping[Any, Any]", here)
            if key not in table and index < len(location) - 1:
                continue
            here = table.get(key)
        elif isinstance(here, list) and isinstance(key, int):
            items = cast("list[Any]", here)
            here = items[key] if key < len(items) else None
        elif index < len(location):
            # A variant's name below a scalar, or a field that has only its default.
            if here is not None:
                continue
        shown.append(str(key))
    return ".".join(shown)
