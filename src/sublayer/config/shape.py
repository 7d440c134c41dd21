"""What a place in the configuration tree may hold, read from its type annotation."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import BaseModel


@dataclass(frozen=True)
class Shape:
    """What a field may hold.

    parts: the nodes that may stand there; more than one means that the key `tag` chooses.
    words: the strings of a `Literal`, or empty.
    items: what the places of a tuple hold, or empty; with `many`, the one item says it of all places.
    text: whether any string is allowed. optional: whether it may be unset.
    """

    parts: tuple[type[BaseModel], ...] = ()
    words: tuple[str, ...] = ()
    items: tuple[Any, ...] = ()
    many: bool = False
    text: bool = False
    optional: bool = False

    @property
    def tag(self) -> str:
        """The key that chooses among several nodes: `kind` for the shapes of a model, `type` everywhere else."""
        return "kind" if self.parts and "kind" in self.parts[0].model_fields else "type"

    @property
    def variants(self) -> dict[str, type[BaseModel]]:
        """The nodes by the value of `tag` that chooses them; empty where there is nothing to choose."""
        if len(self.parts) < 2:
            return {}
        return {word: part for part in self.parts for word in field_shape(part, self.tag).words}

    def item(self, place: int) -> Shape:
        """The shape of one place of a tuple; empty where there is no such place."""
        if self.many:
            return shape_of(self.items[0])
        return shape_of(self.items[place]) if place < len(self.items) else Shape()

    def part(self, data: Any) -> type[BaseModel] | None:
        """The node that `data` asks for, or None where there is none or `data` does not say."""
        if len(self.parts) == 1:
            return self.parts[0]
        if isinstance(data, Mapping):
            tag = cast("Mapping[Any, Any]", data).get(self.tag)
            return self.variants.get(tag) if isinstance(tag, str) else None
        return None


def shape_of(annotation: Any) -> Shape:
    """The shape of a field with this annotation."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return shape_of(arguments[0])
    if origin is Union or origin is types.UnionType:
        return _together([shape_of(argument) for argument in arguments])
    if origin is Literal:
        return Shape(words=tuple(str(word) for word in arguments))
    if origin is tuple:
        many = len(arguments) == 2 and arguments[1] is Ellipsis
        return Shape(items=arguments[:1] if many else arguments, many=many)
    if annotation is type(None):
        return Shape(optional=True)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return Shape(parts=(annotation,))
    return Shape(text=annotation is str)


def field_shape(part: type[BaseModel], name: str) -> Shape:
    """The shape of the field `name` of `part`; empty where there is no such field."""
    field = part.model_fields.get(name)
    return Shape() if field is None else shape_of(field.annotation)


def _together(shapes: list[Shape]) -> Shape:
    return Shape(
        parts=tuple(part for shape in shapes for part in shape.parts),
        words=tuple(word for shape in shapes for word in shape.words),
        items=next((shape.items for shape in shapes if shape.items), ()),
        many=any(shape.many for shape in shapes),
        text=any(shape.text for shape in shapes),
        optional=any(shape.optional for shape in shapes),
    )
