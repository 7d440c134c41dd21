"""Settings that had another name once: what was written then is read as though it had today's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

FORMER: Mapping[tuple[str, str], str] = {
    ("block", "wiring"): "norm_placement",
    ("embedding", "types"): "token_types",
}
"""By the table that it stands in and its former name: today's."""


def with_present_names(data: Any, table: str = "") -> Any:
    """`data`, plain, with today's names. table: the key that it stands under."""
    if isinstance(data, Mapping):
        fields = cast("Mapping[Any, Any]", data)
        return {FORMER.get((table, key), key): with_present_names(value, key) for key, value in fields.items()}
    if isinstance(data, list):
        return [with_present_names(item, table) for item in cast("list[Any]", data)]
    return data
