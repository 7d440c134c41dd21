"""Options of the command line that are fields of the configuration tree: their names, types and help stand there alone.

    @from_tree(sampling=fields(config.Sampling))
    def generate(prompt: str, sampling: Told) -> None: ...

has an option for each field of `Sampling` in the place of the parameter `sampling`, which is given what the user said:
values by field, ready to be laid on the model's own and parsed by the tree, which knows what they may be.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from sublayer.config.descriptions import field_descriptions
from sublayer.config.part import Part

OWN = "the model's own"
Told = dict[str, Any]
Command = TypeVar("Command", bound=Callable[..., None])


Group = Mapping[str, inspect.Parameter]
"""Options that a command is given together, by the name under which it is told of each."""


def fields(
    part: type[Part], only: Sequence[str] = (), *, called: Mapping[str, str] = {}, more: Mapping[str, str] = {}
) -> Group:
    """Options for fields of a part of the tree.

    Args:
        only: these; empty means all that are numbers. called: what the option of a field is called where it is another
            name. more: what is to be said of a field besides what the tree says.
    """
    said = field_descriptions(part.__doc__ or "", part.model_fields)
    found: dict[str, inspect.Parameter] = {}
    for name, annotated in part.model_fields.items():
        kind = _number(annotated.annotation)
        if kind is None or (only and name not in only):
            continue
        told = " ".join(filter(None, (said[name], more.get(name))))
        option = typer.Option(help=told[0].upper() + told[1:], show_default=OWN)
        found[name] = inspect.Parameter(
            called.get(name, name),
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[kind | None, option],
        )
    return found


def from_tree(**groups: Group) -> Callable[[Command], Command]:
    """Give a command the options of these fields, each group in the place of the parameter that is called so."""

    def decorate(command: Command) -> Command:
        hints = get_type_hints(command, include_extras=True)
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command).parameters.values():
            if parameter.name in groups:
                parameters += groups[parameter.name].values()
            else:
                parameters.append(
                    parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
                )

        @wraps(command)
        def called(*placed: Any, **given: Any) -> None:
            told = {
                group: {
                    name: value for name, option in each.items() if (value := given.pop(option.name, None)) is not None
                }
                for group, each in groups.items()
            }
            command(*placed, **given, **told)

        annotations = {parameter.name: parameter.annotation for parameter in parameters}
        called.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportAttributeAccessIssue]
        called.__annotations__ = annotations
        return called  # pyright: ignore[reportReturnType]

    return decorate


def _number(annotation: Any) -> type[int] | type[float] | None:
    """What a field holds that is a number, or unset; None of any other."""
    if annotation in (int, float):
        return annotation
    inside = [_number(each) for each in getattr(annotation, "__args__", ()) if each is not type(None)]
    return inside[0] if len(inside) == 1 and getattr(annotation, "__origin__", None) is not tuple else None
