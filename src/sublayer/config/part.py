"""The base of every node in the configuration tree, and how plain data becomes one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sublayer.config.former_names import with_present_names
from sublayer.config.report import report
from sublayer.config.shape import Shape, shape_of
from sublayer.errors import ConfigError

UNSET = "none"
"""How TOML, which has no null, says that an optional value is unset: `clip_norm = "none"`."""


Probability = Annotated[float, Field(ge=0.0, lt=1.0)]
"""A dropout's, say: below 1, so that something is left."""


FLOAT32, BFLOAT16 = 4, 2
"""Bytes of a number."""

LARGEST_COUNT = 2**24
"""Of anything that is counted: tokens of a vocabulary, positions, units. Four times the largest that are in use, and
small enough that no product of a few of them passes 64 bits."""
MOST_LAYERS = 1024
"""And experts."""
MOST_BEAMS = 1024
STEEPEST = 32.0
"""Exponent of a length: a text of a million tokens stays within the range of a double."""

Size = Annotated[int, Field(gt=0, le=LARGEST_COUNT)]
Count = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
Layers = Annotated[int, Field(gt=0, le=MOST_LAYERS)]
Experts = Layers
Beams = Annotated[int, Field(gt=0, le=MOST_BEAMS)]
LengthPenalty = Annotated[float, Field(ge=-STEEPEST, le=STEEPEST)]
Factor = Annotated[float, Field(gt=0.0, le=1e12)]
Epsilon = Annotated[float, Field(gt=0.0, le=1000.0)]
"""Added to a variance, of numbers whose variance is about 1; checkpoints have 1e-12 to 1e-3."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Part(BaseModel):
    """A frozen node: typed strictly, compared by value, unknown keys refused with the nearest known name."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, data: Mapping[str, Any], where: str, problems: Sequence[str] = ()) -> Self:
        """The tree from plain data, or one `ConfigError` that names every problem.

        An optional value is unset by null or by the word "none"; a list stands for a tuple.

        Args:
            data: nested mappings, lists and scalars, as TOML or JSON give them.
            where: what the data is, for the message (a file's name, say).
            problems: what is known to be wrong already, to be reported with the rest.
        """
        found = list(problems)
        try:
            tree = cls.model_validate(fitted(with_present_names(data), Shape(parts=(cls,))))
            if not found:
                return tree
        except ValidationError as error:
            found += report(error, cls)
        raise ConfigError(f"{where}: {'; '.join(found)}")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other values in some fields; they are validated like any other, which pydantic does not do.

        Raises:
            ValidationError: the values cannot be.
        """
        if not update:
            return super().model_copy(deep=deep)
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        unknown = update.keys() - fields.keys()
        assert not unknown, f"{type(self).__name__} has no {sorted(unknown)}"
        return type(self).model_validate({**fields, **update})

    def plain(self) -> dict[str, Any]:
        """The tree as nested dicts, lists and scalars, ready for JSON."""
        return self.model_dump(mode="json")


def fitted(data: Any, shape: Shape) -> Any:
    """`data` in the types that strict validation wants: dicts, tuples, and None for an optional value of "none"."""
    if isinstance(data, Mapping):
        table = cast("Mapping[Any, Any]", data)
        part = shape.part(table)
        fields = part.model_fields if part else {}
        return {
            key: fitted(value, shape_of(fields[key].annotation) if key in fields else Shape())
            for key, value in table.items()
        }
    if isinstance(data, list) and shape.items:
        return tuple(fitted(value, shape.item(place)) for place, value in enumerate(cast("list[Any]", data)))
    unset = shape.optional and not shape.text and UNSET not in shape.words and data == UNSET
    return None if unset else cast("Any", data)
