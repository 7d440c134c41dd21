"""Trees that together hold every value of every field, made from the tree's own types.

Nobody lists the parts here: a field, a word or a part that is added to the tree is drawn, and must be covered, by
itself. Numbers are drawn from a few; of those a field must have shown at least two.
"""

from __future__ import annotations

import random
import types
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from sublayer import config
from sublayer.config.part import MOST_LAYERS, Part

NUMBERS = (0, 1, 2, 3, 4, 6, 8, 16)
FEW = (1, 2, 3)
"""Of layers, and of what else is as bounded."""
REALS = (0.0, 0.5, 1.0, 2.0, 30.0)
TEXTS = ("a", "b", "c")

Item = tuple[str, str, str]
"""A part's class, a field, and which of its values: a word, a class, "empty", or "number"."""


@cache
def fields_of(part: type[BaseModel]) -> dict[str, Any]:
    """The whole annotation of each field; of a number, the values that it is drawn from."""
    return {name: _choices(_annotation(field)) for name, field in part.model_fields.items()}


def _annotation(field: FieldInfo) -> Any:
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def _choices(annotation: Any) -> Any:
    """The annotation, with a `Numbers` in the place of every number."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return Numbers.of(annotation) if arguments[0] in (int, float) else _choices(arguments[0])
    if origin in (Union, types.UnionType):
        return Either(tuple(_choices(argument) for argument in arguments))
    return annotation


@dataclass(frozen=True)
class Either:
    """One of several kinds of value."""

    choices: tuple[Any, ...]


@dataclass(frozen=True)
class Numbers:
    """The numbers that may stand in a field, of those that are drawn."""

    values: tuple[Any, ...]

    @classmethod
    def of(cls, annotation: Any) -> Numbers:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        bounds = [getattr(bound, "le", None) for each in get_args(annotation)[1:] for bound in _bounds(each)]
        pool = REALS if get_args(annotation)[0] is float else FEW if MOST_LAYERS in bounds else NUMBERS

        def may(number: Any) -> bool:
            try:
                adapter.validate_python(number, strict=True)
            except ValidationError:
                return False
            return True

        return cls(tuple(number for number in pool if may(number)))


def _bounds(metadata: Any) -> list[Any]:
    return list(metadata.metadata) if isinstance(metadata, FieldInfo) else [metadata]


def draw_part(part: type[BaseModel], draw: random.Random) -> Any:
    """One of `part`, as random as its validators let it be: where they do not, one field after another is another."""
    fields = fields_of(part)
    values = {name: draw_value(kind, draw) for name, kind in fields.items()}
    for _ in range(5000):
        if part is config.Stack:
            values["others"] = tuple(_alike(other, values["block"]) for other in values["others"])
        try:
            return part(**values)
        except ValidationError:
            name = draw.choice(list(fields))
            values[name] = draw_value(fields[name], draw)
    raise AssertionError(f"no {part.__name__} was valid")


def _alike(other: config.OtherLayers, usual: config.Block) -> config.OtherLayers:
    """Another block with what all blocks of a stack must share."""
    same = {name: getattr(usual.attention, name) for name in ("heads", "kv_heads", "head_dim")}
    update: dict[str, Any] = {"attention": other.block.attention.model_copy(update=same)}
    if other.block.leaves_norm != usual.leaves_norm:
        update |= {"norm_placement": usual.norm_placement, "attention_norm": True}
    return other.model_copy(update={"block": other.block.model_copy(update=update)})


def draw_value(kind: Any, draw: random.Random) -> Any:
    if isinstance(kind, Numbers):
        return draw.choice(kind.values)
    if isinstance(kind, Either):
        return draw_value(draw.choice(kind.choices), draw)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return draw.choice(arguments)
    if origin is tuple:
        if arguments[0] is str:
            return TEXTS[: draw.randint(1, len(TEXTS))]
        return tuple(draw_value(_choices(arguments[0]), draw) for _ in range(draw.randint(0, 1)))
    if kind is bool:
        return draw.random() < 0.5
    if kind is type(None):
        return None
    assert issubclass(kind, Part), f"how is a {kind} drawn?"
    return draw_part(kind, draw)


# --- what a tree covers ------------------------------------------------------------------------------------------


def parts_in(part: Part) -> Iterator[Part]:
    """`part` and every part below it."""
    yield part
    for name in type(part).model_fields:
        value = getattr(part, name)
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, Part):
                yield from parts_in(each)


def shown(tree: Part) -> set[Item]:
    """What `tree` covers."""
    return {
        (type(part).__name__, name, tag)
        for part in parts_in(tree)
        for name in type(part).model_fields
        for tag in _tags(getattr(part, name))
    }


def _tags(value: Any) -> list[str]:
    if isinstance(value, Part):
        return [type(value).__name__]
    if isinstance(value, tuple):
        return [tag for each in value for tag in _tags(each)] if value else ["empty"]
    if isinstance(value, bool) or value is None:
        return [str(value)]
    return [f"number {value}" if isinstance(value, int | float) else str(value)]


def required(root: type[Part]) -> set[Item]:
    """What the trees under `root` must cover together; of numbers it says only that there are some."""
    found: set[Item] = set()
    waiting: list[type[Any]] = [root]
    seen: set[type[Any]] = set()
    while waiting:
        part = waiting.pop()
        if part in seen:
            continue
        seen.add(part)
        for name, annotation in fields_of(part).items():
            for tag in _possible(annotation):
                found.add((part.__name__, name, tag if isinstance(tag, str) else tag.__name__))
                if not isinstance(tag, str):
                    waiting.append(tag)
    return found


def _possible(kind: Any) -> list[str | type[Part]]:
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(kind, Numbers):
        return ["number"]
    if isinstance(kind, Either):
        return [tag for choice in kind.choices for tag in _possible(choice)]
    if origin is Literal:
        return list(arguments)
    if origin is tuple:
        return [] if arguments[0] is str else ["empty", *_possible(_choices(arguments[0]))]
    if kind is bool:
        return ["True", "False"]
    return ["None"] if kind is type(None) else [kind]


def uncovered(root: type[Part], items: set[Item]) -> list[Item]:
    """What is required and not among the items; numbers of which fewer than two are."""
    numbers = Counter(item[:2] for item in items if item[2].startswith("number "))
    return sorted(
        item for item in required(root) if (numbers[item[:2]] < 2 if item[2] == "number" else item not in items)
    )


def covering(root: type[Part], tries: int = 260, most: int = 40) -> list[Any]:
    """Valid trees that cover all, and besides as many pairs of a part's class and a value as `most` trees show.

    Each shows a pair that none before it does; all are drawn the same each time.
    """
    draw = random.Random(root.__name__)
    kept: list[Any] = []
    pairs: set[tuple[str, Item]] = set()
    have: set[Item] = set()
    for _ in range(tries):
        tree = draw_part(root, draw)
        items, parts = shown(tree), {type(part).__name__ for part in parts_in(tree)}
        if items - have or (len(kept) < most and any((part, item) not in pairs for part in parts for item in items)):
            kept.append(tree)
            have |= items
            pairs |= {(part, item) for part in parts for item in items}
    return kept
