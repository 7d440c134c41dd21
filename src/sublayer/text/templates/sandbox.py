"""The environment that chat templates run in: jinja2's sandbox, in which every string keeps its provenance.

All that makes a string goes through `provenance`: operators, `~`, output, macros, filters and methods. What a template
may call and filter by is a closed set; anything else is refused, or its result counts as the user's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial, wraps
from types import BuiltinMethodType, MethodType
from typing import Any, NoReturn, cast

from jinja2 import Environment, TemplateError, Undefined, nodes
from jinja2.compiler import CodeGenerator
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import make_attrgetter
from jinja2.runtime import BlockReference, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Cycler, Joiner, Namespace, generate_lorem_ipsum, pass_environment

from .provenance import ASKING, FOLLOWED, as_text, formatted, joined, lifted, of_user, plain

PASSING = frozenset(
    {
        "abs", "attr", "batch", "count", "d", "default", "dictsort", "first", "float", "groupby", "int", "items",
        "last", "length", "list", "map", "max", "min", "random", "reject", "rejectattr", "reverse", "round", "select",
        "selectattr", "slice", "sort", "sum", "unique", "wordcount",
    }
)  # fmt: skip
"""The filters that make no strings: they pass on what they are given, or answer with a number."""
OPAQUE = frozenset(
    {
        "e", "escape", "filesizeformat", "forceescape", "pprint", "striptags", "title", "truncate", "urlencode",
        "urlize", "wordwrap", "xmlattr",
    }
)  # fmt: skip
"""The filters that nobody follows: what they make is the user's. Every other filter is one of ours (`FILTERS`)."""


class Dict:
    """`dict` for templates: makes one, and cannot be used to change one."""

    def __call__(self, *values: Any, **named: Any) -> dict[Any, Any]:
        return dict(*values, **named)

    def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


class SafeNamespace(Namespace):
    """A namespace without names that begin with an underscore."""

    def __init__(*values: Any, **named: Any) -> None:
        self, *rest = values
        given = dict(*rest, **named)
        for name in given:
            _refuse_private(name)
        Namespace.__init__(self, given)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


class Generation(Extension):
    """`{% generation %}`: marks what the assistant says, for others; here its body is written as it is."""

    tags = {"generation"}  # noqa: RUF012  # the base class has it as an instance's attribute

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class Generator(CodeGenerator):
    """Jinja's compiler, with a `~` that goes through the environment."""

    def visit_Concat(self, node: nodes.Concat, frame: Any) -> None:
        self.write("environment.concat(map(environment.finalize, (")
        for each in node.nodes:
            self.visit(each, frame)
            self.write(", ")
        self.write(")))")


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which strings keep their provenance, and which refuses aloud."""

    code_generator_class = Generator
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})
    concat = staticmethod(joined)  # pyright: ignore[reportAssignmentType]

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols], finalize=as_text, cache_size=0
        )
        filters = cast("dict[str, Callable[..., Any]]", self.filters)
        kept = {name: function for name, function in filters.items() if name in PASSING}
        closed = {name: _opaque(function) for name, function in filters.items() if name in OPAQUE}
        filters.clear()
        filters.update({**kept, **closed, **FILTERS})
        self._functions: tuple[Any, ...] = (
            self.globals["range"],
            Dict(),
            Cycler,
            Joiner,
            SafeNamespace,
            _opaque(generate_lorem_ipsum),
            _raise_exception,
            _strftime_now,
        )
        names = ("range", "dict", "cycler", "joiner", "namespace", "lipsum", "raise_exception", "strftime_now")
        self.globals.clear()
        self.globals.update(zip(names, self._functions, strict=True))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        # The methods of strings that a template may have are given out by `wrap_str_format`.
        return not isinstance(obj, str) and super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        raise SecurityError(f"{attribute!r} of a {'str' if isinstance(obj, str) else type(obj).__name__}")

    def wrap_str_format(self, value: Any) -> Callable[..., Any] | None:
        """A string's method, as `Tracked` has it. Jinja asks this of all that a template takes out of an object."""
        if not isinstance(value, MethodType | BuiltinMethodType) or not isinstance(value.__self__, str):
            return None
        text = lifted(value.__self__)
        if value.__name__ == "format":
            return partial(self._format, text)
        return getattr(text, value.__name__) if value.__name__ in FOLLOWED | ASKING else None

    def _format(self, text: str, /, *values: Any, **named: Any) -> str:
        return formatted(SandboxedFormatter(self), text, values, named)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return joined((left, right))  # what the next lines come to, sooner: most of what templates do
        if isinstance(left, str):
            left = lifted(left)
        if isinstance(right, str):
            right = lifted(right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *values: Any, **named: Any) -> Any:
        if not __self._may_call(__obj):
            raise SecurityError(f"a call of a {type(__obj).__name__}")
        return super().call(__context, __obj, *values, **named)

    def _may_call(self, function: Any) -> bool:
        """Whether it is one of ours, written in the template, or a method of what holds values."""
        if isinstance(function, partial | Macro | BlockReference | LoopContext | Cycler | Joiner | Undefined):
            return True
        if any(function is one for one in self._functions):
            return True
        owner = getattr(function, "__self__", None)
        if isinstance(owner, int | float):
            return function.__name__ == "is_integer"
        return isinstance(owner, str | dict | list | tuple | range | LoopContext | Cycler | Dict)


def parsed(environment: Environment, source: str) -> nodes.Template:
    """The syntax tree of `source`.

    Raises:
        TemplateError: it is not a template, or turns HTML's escapes on, which no text for a model has.
    """
    tree = environment.parse(source)
    if tree.find(nodes.EvalContextModifier) is not None:
        raise TemplateError("it uses autoescape, which is not supported")
    return tree


def _refuse_private(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"{name!r} in a namespace")


def _opaque(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, the string that it makes being the user's."""

    @wraps(function)
    def opaque(*values: Any, **named: Any) -> Any:
        result = function(*values, **named)
        return of_user(plain(result)) if isinstance(result, str) else result

    return opaque


# --- globals ----------------------------------------------------------------------------------------------------------


def _raise_exception(message: Any) -> NoReturn:
    raise TemplateError(str(message))


def _strftime_now(format: str) -> str:  # noqa: A002  # the name that templates know
    now = datetime.now().strftime(plain(format))
    return now if type(format) is str else of_user(now)


# --- filters ----------------------------------------------------------------------------------------------------------


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As JSON, without the escapes for HTML that jinja's own has."""
    return of_user(
        json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    )


@pass_environment
def _join(environment: Environment, value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
    if attribute is not None:
        value = map(make_attrgetter(environment, attribute), value)
    return lifted(as_text(d)).join(map(as_text, value))


def _replace(s: str, old: str, new: str, count: int | None = None) -> str:
    return lifted(as_text(s)).replace(as_text(old), as_text(new), count or -1)


def _trim(value: str, chars: str | None = None) -> str:
    return lifted(as_text(value)).strip(chars)


def _center(value: str, width: int = 80) -> str:
    return lifted(as_text(value)).center(width)


def _format(value: str, *values: Any, **named: Any) -> str:
    if values and named:
        raise TypeError("positional and keyword arguments at once")
    return lifted(as_text(value)) % (named or values)


def _indent(s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    margin = as_text(width) if isinstance(width, str) else " " * width
    text = as_text(s)
    lines = lifted(joined((text, "\n"))).splitlines()
    # Jinja writes line feeds of its own for whatever ended the lines.
    feed = of_user("\n") if type(text) is not str else "\n"
    parts: list[str] = []
    for number, line in enumerate(lines):
        # Jinja leaves an empty line without a margin, and with `blank` gives it one.
        marked = first if number == 0 else blank or bool(line)
        parts += [feed if number else "", margin if marked else "", line]
    return joined(parts)


def _changed(method: str) -> Callable[[Any], str]:
    """The filter that is this method of strings."""
    return lambda value: getattr(lifted(as_text(value)), method)()


FILTERS: Mapping[str, Callable[..., Any]] = {
    "tojson": _tojson,
    "join": _join,
    "replace": _replace,
    "trim": _trim,
    "upper": _changed("upper"),
    "lower": _changed("lower"),
    "capitalize": _changed("capitalize"),
    "center": _center,
    "format": _format,
    "indent": _indent,
    "string": as_text,
    "safe": as_text,
}
