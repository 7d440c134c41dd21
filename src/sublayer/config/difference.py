"""Where two trees differ, as plain data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast


def differences(one: Any, other: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Return what differs between two trees of plain data: by dotted path what stands in each, None where nothing does.

    Lists of equal length are compared item by item ("blocks[2].norm"), others as a whole.
    """
    if isinstance(one, dict) and isinstance(other, dict):
        first, second = cast("dict[str, Any]", one), cast("dict[str, Any]", other)
        keys = dict.fromkeys([*first, *second])
        return _joined((first.get(key), second.get(key), f"{path}.{key}" if path else str(key)) for key in keys)
    if isinstance(one, list) and isinstance(other, list):
        ours, theirs = cast("list[Any]", one), cast("list[Any]", other)
        if len(ours) == len(theirs):
            pairs = zip(ours, theirs, strict=True)
            return _joined((a, b, f"{path}[{place}]") for place, (a, b) in enumerate(pairs))
    return {} if one == other else {path: (one, other)}


def _joined(parts: Iterable[tuple[Any, Any, str]]) -> dict[str, tuple[Any, Any]]:
    return {where: pair for a, b, path in parts for where, pair in differences(a, b, path).items()}


def is_path(where: str) -> bool:
    """Whether a setting of a recipe says only where text or weights stand."""
    first, _, last = where.partition(".")
    names = ("source", "target", "path", "shards")
    return first in ("data", "start") and last.rpartition(".")[2].partition("[")[0] in names
