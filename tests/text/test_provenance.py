"""Strings that know which of their characters a user wrote.

The oracle needs no second implementation: users write in Greek and templates in Latin letters, so that a character says
itself where it came from.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.defaults import DEFAULT_FILTERS

from sublayer.text.templates.provenance import (
    ASKING,
    FOLLOWED,
    Tracked,
    as_text,
    joined,
    lifted,
    of_user,
    origin,
    plain,
    spans,
)
from sublayer.text.templates.sandbox import FILTERS, OPAQUE, PASSING, Sandbox

REFUSED = {"encode", "format_map", "maketrans"}
LATIN = "ab B,\n\t-<|>"
GREEK = "αβΒ·ς"

latin = st.text(LATIN, max_size=6)
greek = st.text(GREEK, max_size=6).map(of_user)
mixed = st.lists(latin | greek, max_size=5).map(joined)


def is_greek(character: str) -> bool:
    return character == "·" or "Ͱ" <= character <= "Ͽ"


def check(made: Any, expected: Any, *, exact: bool = True) -> None:
    """The same as a plain string gives; every Greek letter is the user's, and with `exact` nothing else is."""
    if isinstance(expected, str):
        assert plain(made) == expected
        assert len(origin(made)) == len(made)
        for character, user in zip(plain(made), origin(made), strict=True):
            assert user or not is_greek(character)
            assert not user or is_greek(character) or not exact
    elif isinstance(expected, list | tuple):
        assert type(made) is type(expected)
        assert len(made) == len(expected)
        for one, other in zip(made, expected, strict=True):
            check(one, other, exact=exact)
    else:
        assert made == expected


CALLS: dict[str, Any] = {
    "split": st.tuples(st.none() | mixed.filter(bool), st.integers(-1, 3)),
    "rsplit": st.tuples(st.none() | mixed.filter(bool), st.integers(-1, 3)),
    "splitlines": st.tuples(st.booleans()),
    "partition": st.tuples(mixed.filter(bool)),
    "rpartition": st.tuples(mixed.filter(bool)),
    "strip": st.tuples(st.none() | mixed),
    "lstrip": st.tuples(st.none() | mixed),
    "rstrip": st.tuples(st.none() | mixed),
    "removeprefix": st.tuples(mixed),
    "removesuffix": st.tuples(mixed),
    "replace": st.tuples(mixed.filter(bool), mixed, st.integers(-1, 3)),
    "join": st.tuples(st.lists(mixed, max_size=4)),
    "format": st.tuples(mixed),
    "center": st.tuples(st.integers(0, 40), st.sampled_from(["-", of_user("α")])),
    "ljust": st.tuples(st.integers(0, 40), st.sampled_from(["-", of_user("α")])),
    "rjust": st.tuples(st.integers(0, 40), st.sampled_from(["-", of_user("α")])),
    "lower": st.tuples(),
    "upper": st.tuples(),
    "casefold": st.tuples(),
    "capitalize": st.tuples(),
    "title": st.tuples(),
    "swapcase": st.tuples(),
    "expandtabs": st.tuples(st.integers(0, 8)),
    "zfill": st.tuples(st.integers(0, 40)),
    "translate": st.tuples(st.just({ord("a"): "b", ord("α"): "β"})),
}
COARSE = {"format", "expandtabs", "zfill", "translate"}


def bare(value: Any) -> Any:
    if isinstance(value, str):
        return plain(value)
    return type(value)(map(bare, value)) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("name", sorted(CALLS))
@given(data=st.data())
def test_every_method_follows_its_characters(name: str, data: st.DataObject) -> None:
    text, arguments = data.draw(mixed), data.draw(CALLS[name])
    expected = getattr(plain(text), name)(*bare(arguments))
    check(getattr(lifted(text), name)(*arguments), expected, exact=name not in COARSE)


@given(
    text=mixed, other=mixed, times=st.integers(-1, 3), begin=st.integers(-9, 9), step=st.sampled_from([-2, -1, 1, 2])
)
def test_operators_and_slices_follow(text: str, other: str, times: int, begin: int, step: int) -> None:
    check(lifted(text) + other, plain(text) + plain(other))
    check("<" + lifted(text), "<" + plain(text))
    check(lifted("<") + text, "<" + plain(text))
    check(lifted(text) * times, plain(text) * times)
    check(lifted(text)[begin::step], plain(text)[begin::step])
    check(list(lifted(text)), list(plain(text)))
    check([*reversed(lifted(text))], [*reversed(plain(text))])
    check(joined([text, other, text]), plain(text) + plain(other) + plain(text))
    assert spans(text) == spans(lifted(text))


@given(value=mixed, number=st.integers(-3, 3))
def test_formats_follow(value: str, number: int) -> None:
    bare_value = plain(value)
    for form, values in (("<%s>%%%s", (value, value)), ("%(a)s|", {"a": value}), ("%s", value)):
        check(lifted(form) % values, form % (bare(values) if isinstance(values, tuple) else values))
    check(lifted("<{}|{a}>").format(value, a=value), f"<{bare_value}|{bare_value}>")
    # A number was made of who knows what, and so was a field that is padded.
    for made, text in (
        (lifted("<%03d|") % number, f"<{number:03d}|"),
        (lifted("<{:>4}|").format(value), f"<{bare_value:>4}|"),
        (lifted("<%5s|") % (value,), f"<{bare_value:>5}|"),
    ):
        check(made, text, exact=False)
        assert origin(made)[0] == origin(made)[-1] == 0
    assert set(origin(as_text(number))) == {1}
    check(lifted(value) % (), bare_value, exact=False)


def test_every_method_of_strings_is_followed_or_asked_or_refused() -> None:
    public = {name for name in dir(str) if not name.startswith("_")}
    assert public == FOLLOWED | ASKING | REFUSED
    assert set(CALLS) == FOLLOWED
    # What is followed is our own, not what `str` has: that would lose the origins.
    assert set(vars(Tracked)) >= FOLLOWED
    assert {
        "__add__",
        "__radd__",
        "__mul__",
        "__rmul__",
        "__mod__",
        "__rmod__",
        "__getitem__",
        "__iter__",
        "__str__",
    } <= {*vars(Tracked)}


def test_every_filter_is_ours_or_passes_values_on_or_is_opaque() -> None:
    assert PASSING | OPAQUE | set(FILTERS) == set(DEFAULT_FILTERS)
    assert len(PASSING) + len(OPAQUE) + len(FILTERS) == len(DEFAULT_FILTERS)
    environment = Sandbox()
    for name in OPAQUE:
        if name in {"filesizeformat", "xmlattr"}:
            continue
        made = environment.filters[name](*_leading(environment, name), "a b")
        assert set(origin(made)) == {1}, name


def _leading(environment: Sandbox, name: str) -> list[Any]:
    """What jinja itself passes to a filter before its value."""
    kind = getattr(environment.filters[name], "jinja_pass_arg", None)
    if kind is None:
        return []
    from jinja2.nodes import EvalContext

    return [environment if kind.name == "environment" else EvalContext(environment)]


@pytest.mark.parametrize(
    ("source", "value", "text", "user"),
    [
        ("<{{ x }}>", "αβ", "<αβ>", [(1, 3)]),
        ("{{ '<' ~ x ~ '>' }}", "αβ", "<αβ>", [(1, 3)]),
        ("{{ '<' + x + '>' }}", "αβ", "<αβ>", [(1, 3)]),
        ("{{ ['<', x, '>'] | join }}", "αβ", "<αβ>", [(1, 3)]),
        ("{{ ['<', x] | join('|') }}", "α", "<|α", [(2, 3)]),
        ("{{ x.split('·') | join('<|>') }}", "α·β", "α<|>β", [(0, 1), (4, 5)]),
        ("{{ x | replace('·', '<') }}", "α·β", "α<β", [(0, 1), (2, 3)]),
        ("{{ x[1:] }}{{ x[0] }}{{ x | first }}{{ x | last }}", "αβ", "βααβ", [(0, 4)]),
        ("{{ x | upper }}{{ x | trim }}{{ x | capitalize }}", "αβ", "ΑΒαβΑβ", [(0, 6)]),
        ("{{ x | indent(1, first=true) }}|", "α\nβ", " α\n β|", [(1, 3), (4, 5)]),
        ("{{ x | center(4) }}|", "αβ", " αβ |", [(1, 3)]),
        ("{% set y %}<{{ x }}>{% endset %}{{ y }}", "α", "<α>", [(1, 2)]),
        ("{% macro m(y) %}<{{ y }}>{% endmacro %}{{ m(x) }}{{ m(x) | upper }}", "α", "<α><Α>", [(1, 2), (4, 5)]),
        ("{% filter upper %}<{{ x }}>{% endfilter %}", "α", "<Α>", [(1, 2)]),
        ("{% for c in x %}{{ c }}-{% endfor %}", "αβ", "α-β-", [(0, 1), (2, 3)]),
        ("{% for a, b in [x] %}{{ b }}-{{ a }}{% endfor %}", "αβ", "β-α", [(0, 1), (2, 3)]),
        ("{{ '<|%s|>' % x }}{{ '<|%s|>' | format(x) }}", "α", "<|α|><|α|>", [(2, 3), (7, 8)]),
        ("{{ '<|{}|>'.format(x) }}{{ '{a}>'.format(a=x) }}", "α", "<|α|>α>", [(2, 3), (5, 6)]),
        ("{{ {x: 1}.keys() | first }}{{ {x: 1} | items | first | first }}", "α", "αα", [(0, 2)]),
        ("{{ x | safe }}{{ x | string }}{{ x | e }}", "α", "ααα", [(0, 3)]),
        ("{{ [x] }}", "α", "['α']", [(0, 5)]),
        ("{{ {'k': x} | tojson }}", "α", '{"k": "α"}', [(0, 10)]),
        ("{{ dict(a=x).a }}{{ namespace(a=x).a }}{{ dict.fromkeys(x) | first }}", "α", "ααα", [(0, 3)]),
        ("{{ cycler('<', x).next() }}{{ joiner(x)() }}{{ [x, '<'] | sort | last }}", "α", "<α", [(1, 2)]),
        ("{{ x | list | reverse | join }}{{ x | reverse }}{{ x | map('upper') | join }}", "α", "ααΑ", [(0, 3)]),
        ("{{ [{'n': x}] | map(attribute='n') | join('<') }}{{ [{'n': x}] | join('<', 'n') }}", "α", "αα", [(0, 2)]),
        ("{{ [x] | groupby(0) | first | first }}{{ [[x]] | sum(start=[]) | first }}", "α", "αα", [(0, 2)]),
        ("{{ x | wordwrap(1) }}{{ x | truncate }}{{ x | title }}{{ x | urlize }}", "α", "ααΑα", [(0, 4)]),
        ("{{ 'a'.join(x) }}{{ x.join('ab') }}", "αβ", "αaβaαβb", [(0, 1), (2, 3), (4, 6)]),
        ("{{ x | length ~ '<' }}{% for c in x %}{{ loop.index }}{% endfor %}", "α", "1<1", [(0, 1), (2, 3)]),
    ],
)  # fmt: skip
def test_templates_keep_origins(source: str, value: str, text: str, user: list[tuple[int, int]]) -> None:
    made = joined(list(Sandbox().from_string(source).generate(x=of_user(value))))
    assert (plain(made), spans(made)) == (text, user)
