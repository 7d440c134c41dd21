"""Settings of another library's config, as rows: what each is called there, and where it stands in our tree.

One table reads a config and writes it. What no row can say (kinds of layers, a setting that depends on another) a
family's own functions add to what the table has read, or to what it has written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import reduce
from typing import Any

from sublayer import config
from sublayer.hub.family import Settings, Tree

MISSING = object()


@dataclass(frozen=True)
class Key:
    """One setting.

    name: theirs. places: where it stands in our tree, by dotted paths with spaces between; the first is what is
        written, a stack's "block" being its first layer.
    default: what their library takes where the setting is missing; None where that is what our tree or form has.
    reads, writes: our words for theirs, and theirs for ours, where they differ.
    null: whether null may stand there in spite of a default, and then says as much as None.
    """

    name: str
    places: str
    default: Any = None
    reads: Mapping[Any, Any] | None = None
    writes: Mapping[Any, Any] | None = None
    null: bool = False

    def read(self, settings: Settings) -> Any:
        if self.reads is not None:
            return settings.one_of(self.name, self.reads, self.default)
        return settings.get(self.name) if self.null or self.default is None else settings.need(self.name)


def read_keys(settings: Settings, keys: Iterable[Key], form: Mapping[str, Any]) -> dict[str, Any]:
    """`form`, a tree as plain data, with what the settings say in its places."""
    # Each part by itself: an encoder and a decoder of one form are two.
    tree: dict[str, Any] = {name: deepcopy(part) for name, part in form.items()}
    for key in keys:
        value = key.read(settings)
        for place in key.places.split() if value is not None else ():
            *tables, last = place.split(".")
            reduce(lambda table, name: table.setdefault(name, {}), tables, tree)[last] = value
    return tree


def write_keys(tree: Tree, keys: Iterable[Key]) -> dict[str, Any]:
    """The settings that say this tree; who exports sees by reading them again what they do not say."""
    found: dict[str, Any] = {}
    for key in keys:
        value = reduce(_inside, key.places.split()[0].split("."), tree)
        if value is not MISSING:
            found[key.name] = value if key.writes is None else key.writes[value]
    return found


def _inside(part: Any, name: str) -> Any:
    if name == "block" and isinstance(part, config.Stack):
        return part.blocks[0]
    return getattr(part, name, MISSING)


def defaults_of(keys: Iterable[Key]) -> dict[str, Any]:
    return {key.name: key.default for key in keys if key.default is not None}


def replaced(keys: Sequence[Key], *others: Key) -> tuple[Key, ...]:
    """The rows with those of `others` for the same places."""
    places = {key.places for key in others}
    return (*(key for key in keys if key.places not in places), *others)


def both(place: str) -> str:
    """The same place in an encoder and a decoder."""
    return f"encoder.{place} decoder.{place}"
