"""`--set training.steps=200`: single values laid on plain data before it becomes a typed tree.

The tree's annotations are walked beside the data, so that a part's new `type` replaces the part, anything else is
merged, and a key below a part that the data leaves out is laid on that part's default.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic import BaseModel

from sublayer.config.part import UNSET, Part
from sublayer.config.recipe import Recipe
from sublayer.config.shape import field_shape
from sublayer.config.training import Training
from sublayer.errors import ConfigError

# Setting one of a pair takes the other away; both together would only ever be refused.
RIVALS = {(Training, "steps"): "minutes", (Training, "minutes"): "steps"}
# Where a value starts like this, it was meant as TOML and is not a bare word.
MARKED = re.compile(r"""["'\[{]""")


def read_override(text: str) -> dict[str, Any]:
    """The nested table that an override such as `a.b.c=value` stands for: {"a": {"b": {"c": value}}}.

    The value is read as TOML (`200`, `1e-3`, `true`, `[0.9, 0.98]`, `{metric = "bleu"}`); a bare word is a string.

    Raises:
        ConfigError: no "=", an empty key, no value, or a value that starts as TOML and is not.
    """
    path, equals, value = text.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise ConfigError(f"--set {text}: this is not KEY=VALUE", "Write, say, --set training.steps=200.")
    if not value.strip():
        raise ConfigError(f"--set {text}: there is no value", f"Write --set '{path}=\"\"' for an empty string.")
    table: Any = _value(value.strip(), text)
    for key in reversed(keys):
        table = {key: table}
    return table


def overridden(data: Mapping[str, Any], overrides: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A recipe's plain `data` with `overrides` (from `read_override`) laid on it; a later one wins.

    Raises:
        ConfigError: an override goes through a value that is not a table.
    """
    result = dict(data)
    for override in overrides:
        result = _laid(result, override, Recipe, ())
    return result


def _laid(
    base: Mapping[str, Any], over: Mapping[str, Any], part: type[BaseModel] | None, path: tuple[str, ...]
) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        rival = RIVALS.get((part, key)) if part is not None else None  # pyright: ignore[reportArgumentType]
        if rival and rival not in over and value != UNSET:
            merged.pop(rival, None)
        merged[key] = _laid_value(merged.get(key), value, part, (*path, key)) if isinstance(value, Mapping) else value
    return merged


def _laid_value(below: Any, over: Any, part: type[BaseModel] | None, path: tuple[str, ...]) -> dict[str, Any]:
    """The table `over` laid on what stands at `path`, a field of `part`."""
    key = path[-1]
    known = part is not None and key in part.model_fields
    shape = field_shape(part, key) if part else None
    if part is not None and known and shape is not None and not shape.parts:
        raise ConfigError(
            f"--set {'.'.join(path)}: {key} is a single value, not a table",
            f"Write --set {'.'.join(path)}=VALUE.",
        )
    if below is None and part is not None and known:
        default = part.model_fields[key].default
        below = default.plain() if isinstance(default, Part) else None
    table: Mapping[str, Any] = cast("Mapping[str, Any]", below) if isinstance(below, Mapping) else {}
    if shape and shape.variants and shape.tag in over and shape.part(over) is not shape.part(table):
        # Keys of another part, or of a model of another kind, would only be refused.
        table = {}
    here = shape.part({**table, **over}) if shape else None
    return _laid(table, over, here, path)


def _value(value: str, text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError as error:
        if MARKED.match(value):
            raise ConfigError(
                f"--set {text}: the value is not TOML ({error})", "Check its quotes and brackets."
            ) from None
        return value
    except RecursionError:
        raise ConfigError(f"--set {text[:80]}: lists or tables are nested too deep", "Flatten them.") from None
    except ValueError:
        raise ConfigError(f"--set {text[:80]}: the number has thousands of digits", "Write a smaller one.") from None
    if len(table) > 1:
        raise ConfigError(f"--set {text}: more than one value", "Give each a --set of its own.")
    return table["value"]
