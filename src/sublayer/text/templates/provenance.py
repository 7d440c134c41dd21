"""Strings that know which of their characters a user wrote.

A plain `str` in a template is the template's own. A `Tracked` has, for each character, whether it came from a user. All
operations on strings that a template can reach keep this up to date, character by character where that is plain to
say. Where it is not, the whole result counts as the user's: text then loses the power to be a special token, it never
gains it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from string import Formatter
from typing import Any, SupportsIndex, cast

ASKING = frozenset(
    {
        "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier",
        "islower", "isnumeric", "isprintable", "isspace", "istitle", "isupper", "rfind", "rindex", "startswith",
    }
)  # fmt: skip
"""The methods that answer with a number or a truth value. Every other method is refused."""

_CONVERSION = re.compile(r"%(?:\((?P<key>[^)]*)\))?[-+ #0]*(?:\d+)?(?:\.\d+)?[hlL]?(?P<type>[a-zA-Z%])")


class Tracked(str):
    """A string with a byte for each character in `_user`: 1 where a user wrote it, 0 where the template did."""

    # An underscore: a template cannot reach it.
    __slots__ = ("_user",)
    _user: bytes

    def __str__(self) -> str:
        return self

    def __iter__(self) -> Iterator[str]:
        for place, character in enumerate(str.__iter__(self)):
            yield made(character, self._user[place : place + 1])

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        found = str.__getitem__(self, key)
        return made(found, self._user[key] if isinstance(key, slice) else bytes((self._user[key],)))

    def __add__(self, other: Any) -> str:
        return joined((self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: Any) -> str:
        return joined((other, self)) if isinstance(other, str) else NotImplemented

    def __mul__(self, times: SupportsIndex) -> str:
        return made(str.__mul__(self, times), self._user * times.__index__())

    def __rmul__(self, times: SupportsIndex) -> str:
        return self * times

    def __mod__(self, values: Any) -> str:
        if b"\1" in self._user:
            return of_user(str.__mod__(self, values))
        return _percent(plain(self), values)

    def __rmod__(self, other: Any) -> str:
        return lifted(other).__mod__(self) if isinstance(other, str) else NotImplemented

    # --- parts of it --------------------------------------------------------------------------------------------------

    def _cut(self, pieces: Sequence[str], gap: int = 0) -> list[str]:
        """`pieces`, which stand in this string one after another with `gap` characters between them."""
        found: list[str] = []
        place = 0
        for piece in pieces:
            found.append(self[place : place + len(piece)])
            place += len(piece) + gap
        return found

    def _search(self, pieces: Sequence[str]) -> list[str]:
        """`pieces`, which stand in this string in this order with white space between them."""
        found: list[str] = []
        place = 0
        for piece in pieces:
            place = str.index(self, piece, place)
            found.append(self[place : place + len(piece)])
            place += len(piece)
        return found

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        pieces = str.split(self, sep, maxsplit)
        return self._search(pieces) if sep is None else self._cut(pieces, len(sep))

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        pieces = str.rsplit(self, sep, maxsplit)
        return self._search(pieces) if sep is None else self._cut(pieces, len(sep))

    def splitlines(self, keepends: bool = False) -> list[str]:
        whole = self._cut(str.splitlines(self, True))
        return [line[: len(kept)] for line, kept in zip(whole, str.splitlines(self, keepends), strict=True)]

    def partition(self, sep: str, /) -> tuple[str, str, str]:
        return cast("tuple[str, str, str]", tuple(self._cut(str.partition(self, sep))))

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        return cast("tuple[str, str, str]", tuple(self._cut(str.rpartition(self, sep))))

    def lstrip(self, chars: str | None = None, /) -> str:
        return self[len(self) - len(str.lstrip(self, chars)) :]

    def rstrip(self, chars: str | None = None, /) -> str:
        return self[: len(str.rstrip(self, chars))]

    def strip(self, chars: str | None = None, /) -> str:
        return lifted(self.lstrip(chars)).rstrip(chars)

    def removeprefix(self, prefix: str, /) -> str:
        return self[len(self) - len(str.removeprefix(self, prefix)) :]

    def removesuffix(self, suffix: str, /) -> str:
        return self[: len(str.removesuffix(self, suffix))]

    # --- put together from others -------------------------------------------------------------------------------------

    def join(self, iterable: Iterable[str], /) -> str:
        parts: list[str] = []
        for part in iterable:
            parts += [self, part]
        return joined(parts[1:])

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> str:
        if not old:
            return of_user(str.replace(self, old, new, count))
        return lifted(new).join(self.split(old, count))

    def format(self, *values: Any, **named: Any) -> str:
        return formatted(Formatter(), self, values, named)

    def _padded(self, pad: Callable[[str, int, str], str], width: SupportsIndex, fill: str) -> str:
        # Where the text ends up is found by padding another one of this length.
        places = pad("x" * len(self), width.__index__(), "-")
        before = len(places) - len(places.lstrip("-"))
        filling = lifted(fill)
        if len(fill) != 1:
            raise TypeError("The fill character must be exactly one character long")
        return joined((filling * before, self, filling * (len(places) - before - len(self))))

    def center(self, width: SupportsIndex, fillchar: str = " ", /) -> str:
        return self._padded(str.center, width, fillchar)

    def ljust(self, width: SupportsIndex, fillchar: str = " ", /) -> str:
        return self._padded(str.ljust, width, fillchar)

    def rjust(self, width: SupportsIndex, fillchar: str = " ", /) -> str:
        return self._padded(str.rjust, width, fillchar)

    # --- changed letters ----------------------------------------------------------------------------------------------

    def _recased(self, text: str) -> str:
        # A letter becomes one or more, never fewer: of the same length, each stands where it stood.
        return made(text, self._user) if len(text) == len(self) else of_user(text)

    def lower(self) -> str:
        return self._recased(str.lower(self))

    def upper(self) -> str:
        return self._recased(str.upper(self))

    def casefold(self) -> str:
        return self._recased(str.casefold(self))

    def capitalize(self) -> str:
        return self._recased(str.capitalize(self))

    def title(self) -> str:
        return self._recased(str.title(self))

    def swapcase(self) -> str:
        return self._recased(str.swapcase(self))

    # --- not followed character by character --------------------------------------------------------------------------

    def expandtabs(self, tabsize: SupportsIndex = 8) -> str:
        return of_user(str.expandtabs(self, tabsize))

    def zfill(self, width: SupportsIndex, /) -> str:
        return of_user(str.zfill(self, width))

    def translate(self, table: Any, /) -> str:
        return of_user(str.translate(self, table))


FOLLOWED = frozenset(name for name in vars(Tracked) if not name.startswith("_"))
"""The methods that make strings: `Tracked` has its own of each."""


def plain(text: str) -> str:
    """The characters alone."""
    return str.__str__(text)


def origin(text: str) -> bytes:
    """A byte for each character: 1 where a user wrote it."""
    if type(text) is Tracked:
        return text._user  # pyright: ignore[reportPrivateUsage]
    # Of another subclass, such as Markup, nobody knows.
    return bytes(len(text)) if type(text) is str else b"\1" * len(text)


def lifted(text: str) -> Tracked:
    """`text` as a `Tracked`, whose methods follow where characters go."""
    if type(text) is Tracked:
        return text
    tracked = str.__new__(Tracked, text)
    tracked._user = origin(text)  # pyright: ignore[reportPrivateUsage]
    return tracked


def made(text: str, user: bytes) -> str:
    """A string of these characters and origins; a plain one where a user wrote none of them."""
    if b"\1" not in user:
        return text if type(text) is str else plain(text)
    tracked = str.__new__(Tracked, text)
    tracked._user = user  # pyright: ignore[reportPrivateUsage]
    return tracked


def of_user(text: str) -> str:
    """`text`, all of it a user's."""
    return made(text, b"\1" * len(text))


def joined(parts: Iterable[str]) -> str:
    """The parts, one after another."""
    each = parts if isinstance(parts, list | tuple) else list(parts)
    if all(type(part) is str for part in each):
        return "".join(each)
    return made("".join(each), b"".join(map(origin, each)))


def as_text(value: Any) -> str:
    """`value` as a template writes it. What is no string (a number, a list) was made from who knows what."""
    if type(value) is str or type(value) is Tracked:
        return value
    return of_user(str(value))


def spans(text: str) -> list[tuple[int, int]]:
    """The runs of characters that a user wrote, from (included) to (excluded)."""
    return [run.span() for run in re.finditer(rb"\x01+", origin(text))]


def formatted(formatter: Formatter, form: str, values: Sequence[Any], named: Any) -> str:
    """`form.format(*values, **named)`, with fields looked up by `formatter`."""
    if b"\1" in origin(form):
        return of_user(formatter.vformat(plain(form), values, named))
    parts: list[str] = []
    count = 0
    for literal, field, spec, conversion in formatter.parse(plain(form)):
        parts.append(literal)
        if field is None:
            continue
        if not field:
            field, count = str(count), count + 1
        value, _ = formatter.get_field(field, values, named)
        if not spec and not conversion:
            parts.append(as_text(value))
            continue
        wide = formatter.vformat(spec or "", values, named)
        parts.append(of_user(formatter.format_field(formatter.convert_field(value, cast("Any", conversion)), wide)))
    return joined(parts)


def _percent(form: str, values: Any) -> str:
    """`form % values`."""
    # Not `form % values`: a `Tracked` on the right would be asked first, and would ask here.
    expected = str.__mod__(form, values)
    if "*" in form:
        return of_user(expected)
    given = iter(cast("tuple[Any, ...]", values) if isinstance(values, tuple) else (values,))
    parts: list[str] = []
    done = 0
    for found in _CONVERSION.finditer(form):
        parts.append(form[done : found.start()])
        done = found.end()
        if found["type"] == "%":
            parts.append("%")
            continue
        key: str | None = found["key"]
        value: Any = next(given, None) if key is None else cast("Any", values)[key]
        conversion = found.group() if key is None else found.group().replace(f"({key})", "", 1)
        bare = conversion == "%s" and isinstance(value, str)
        parts.append(as_text(value) if bare else of_user(conversion % (value,)))
    parts.append(form[done:])
    # Python has the last word on what is right, and on the errors of what is not.
    whole = joined(parts)
    return whole if plain(whole) == expected else of_user(expected)
