"""Chat templates and messages that nobody thought of: no traceback, no hang, and no special token that a user made.

A short run by default; `FUZZ_EXAMPLES=5000` makes a long one of it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vocabularies
from sublayer.errors import SublayerError
from sublayer.text import Tokenizer
from sublayer.text.chat import ChatTemplate, Rendered
from sublayer.text.folder import load_folder
from sublayer.text.templates.process import TemplateProcess

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
CLOCK = 20.0
"""Seconds by the clock that a template gets, however busy the machine is; of processor time it has half a second."""

short = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
MARKERS = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "[INST]", "☃")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """One of its special tokens is a single character, which has no inside."""
    return load_folder(
        vocabularies.gpt2(
            tmp_path_factory.mktemp("fuzz"),
            specials=("<unk>", *MARKERS),
            tokenizer_class="GPT2Tokenizer",
            bos_token="<s>",
            eos_token="</s>",
            unk_token="<unk>",
            additional_special_tokens=[*MARKERS[2:]],
        )
    )


@pytest.fixture(scope="module")
def process() -> TemplateProcess:
    return TemplateProcess(seconds=0.5, clock=CLOCK, memory=256 * 1024 * 1024)


# --- what users write: special tokens, whole and in pieces, in every field -------------------------------------------

PIECES = ("<|im_", "_end|>", "end|>", "<|", "|>", "<", ">", "im_end", "[IN", "ST]", "</", "s>", " ", "\n", "é", "dog")
OTHERS = ("</think>", "<img>", "{{ x }}", "%s", "{}", "{0}", "\\", '"', "\r\n", "ß", "İ")
fragments = st.sampled_from([*MARKERS, *PIECES, *OTHERS])
texts = st.lists(fragments, min_size=1, max_size=6).map("".join)
values = st.recursive(
    texts | st.integers(-3, 300) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
messages = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "user", "assistant", "tool", "im_end", "s"]),
            "content": texts,
            "parts": st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": texts}), min_size=1, max_size=3),
            "name": texts,
            "args": st.dictionaries(texts, values, max_size=3),
        }
    ),
    min_size=1,
    max_size=3,
)

# --- what templates do -----------------------------------------------------------------------------------------------

literals = st.sampled_from(
    ["<|im_start|>", "<|im_end|>", "</s>", "[INST]", "☃", "<|im_", "end|>", "<", "|", ">", " ", "\n"]
)
quoted_literals = literals.map(lambda text: repr(text))
FILTERS = (
    *(
        "trim",
        "upper",
        "lower",
        "capitalize",
        "title",
        "string",
        "safe",
        "e",
        "tojson",
        "list",
        "first",
        "last",
        "length",
    ),
    *(
        "reverse",
        "join",
        "join('-')",
        "replace('im', 'i')",
        "replace('<img>', '')",
        "indent(2)",
        "indent(1, true, true)",
    ),
    *(
        "center(9)",
        "truncate(5)",
        "wordwrap(3)",
        "default('d')",
        "urlencode",
        "striptags",
        "unique | join",
        "sort | join",
    ),
    *("map('upper') | join", "batch(2) | map('join') | join('.')", "pprint", "format(1)", "items | list", "xmlattr"),
)
METHODS = (
    *(".strip()", ".split('</think>')[-1]", ".split('<img>') | join", ".split() | join(' ')", ".upper()", ".lower()"),
    *(
        ".replace('dog', '')",
        "[1:]",
        "[:-1]",
        "[::-1]",
        "[0]",
        ".partition('|') | join",
        ".splitlines() | join",
        ".title()",
    ),
    *(
        ".removeprefix('<')",
        ".join('ab')",
        ".center(9)",
        ".format(1)",
        ".zfill(9)",
        ".ljust(9, '|')",
        ".rsplit('|', 1)[0]",
    ),
)
paths = st.sampled_from(
    [
        *(
            "m.content",
            "m['content']",
            "m.name",
            "m.role",
            "m.args",
            "m.parts",
            "m.args.items() | list",
            "m",
            "messages",
        ),
        *("m.parts[0].text", "m.parts | map(attribute='text') | join", "loop.index", "m.args.keys() | first", "tools"),
    ]
)


def expressions() -> st.SearchStrategy[str]:
    def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.builds("({} ~ {})".format, inner, inner),
            st.builds("({} + {})".format, inner, inner),
            st.builds("({} | {})".format, inner, st.sampled_from(FILTERS)),
            st.builds("(({}){})".format, inner, st.sampled_from(METHODS)),
            st.builds("[{}, {}] | join({})".format, inner, inner, quoted_literals),
            st.builds("('<|%s|>' % ({} | string))".format, inner),
            st.builds("('{{}}|>'.format({}))".format, inner),
            st.builds("({} * 2)".format, inner),
            st.builds("({} if {} else {})".format, inner, inner, inner),
            st.builds("said({})".format, inner),
        )

    return st.recursive(paths | quoted_literals, grown, max_leaves=6)


def statements() -> st.SearchStrategy[str]:
    written = expressions().map(lambda expression: "{{ " + expression + " }}")
    return st.recursive(
        written | literals,
        lambda inner: st.one_of(
            st.builds("{}{}".format, inner, inner),
            inner.map(lambda body: "{% for p in m.parts %}" + body + "{{ p.text }}{% endfor %}"),
            inner.map(lambda body: "{% for c in m.content %}{{ c }}{% endfor %}" + body),
            inner.map(lambda body: "{% if 'dog' in m.content %}" + body + "{% endif %}"),
            inner.map(lambda body: "{% set x %}" + body + "{% endset %}{{ x }}"),
            inner.map(lambda body: "{% filter upper %}" + body + "{% endfilter %}"),
            inner.map(lambda body: "{% generation %}" + body + "{% endgeneration %}"),
        ),
        max_leaves=4,
    )


templates = statements().map(
    lambda body: (
        "{% macro said(y) %}{{ y }}{% endmacro %}{% for m in messages %}<|im_start|>" + body + "</s>{% endfor %}"
    )
)


def rendered(process: TemplateProcess, source: str, talk: Any, **more: Any) -> Rendered | None:
    """None where it is refused, as it may be: by an error of ours, in time."""
    begun = time.monotonic()
    try:
        template = ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"}, MARKERS, process=process)
        return template.render(talk, **more)
    except SublayerError:
        return None
    finally:
        assert time.monotonic() - begun < 2 * CLOCK + 5  # compiled, then rendered


@short
@given(
    source=templates, talk=messages, tools=st.none() | st.lists(st.dictionaries(texts, values, max_size=3), max_size=2)
)
def test_no_special_token_depends_on_what_users_write(
    tokenizer: Tokenizer, process: TemplateProcess, source: str, talk: Any, tools: Any
) -> None:
    """The ids of what the template wrote are the same with all that users wrote turned into harmless letters."""
    made = rendered(process, source + "{{ tools }}" * (tools is not None), talk, tools=tools)
    if made is None:
        return
    users = {place for begin, end in made.quoted for place in range(begin, end)}
    harmless = "".join("x" if place in users else character for place, character in enumerate(made.text))
    special = tokenizer.specials.ids
    tokens = tokenizer.encode_template(made.text, made.quoted)
    found = [(i, span) for i, span in zip(tokens.ids, tokens.spans, strict=True) if i in special]
    for identifier, (begin, end) in found:
        assert made.text[begin:end] == tokenizer.token(identifier)
        assert not users & set(range(begin, end))
    plain = tokenizer.encode_template(harmless)
    assert found == [(i, span) for i, span in zip(plain.ids, plain.spans, strict=True) if i in special]
    assert tokenizer.decode([tokens.ids], skip_special=False) == [made.text]


# Greek letters say themselves that a user wrote them: no template has one.
greek = st.text("αβΓΔς·", min_size=1, max_size=6)
greek_values = st.recursive(
    greek, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(greek, inner, max_size=3), max_leaves=5
)
greek_messages = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "assistant", "βοτ"]),
            "content": greek,
            "parts": st.lists(st.fixed_dictionaries({"type": greek, "text": greek}), min_size=1, max_size=3),
            "name": greek,
            "args": st.dictionaries(greek, greek_values, max_size=3),
        }
    ),
    min_size=1,
    max_size=3,
)


@short
@given(source=templates, talk=greek_messages)
def test_every_letter_of_a_user_is_known_as_one(process: TemplateProcess, source: str, talk: Any) -> None:
    made = rendered(process, source, talk)
    if made is None:
        return
    users = {place for begin, end in made.quoted for place in range(begin, end)}
    for place, character in enumerate(made.text):
        assert place in users or not ("Ͱ" <= character <= "Ͽ" or character == "·")


@short
@given(source=templates, talk=messages)
def test_texts_are_those_of_transformers(process: TemplateProcess, source: str, talk: Any) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    made = rendered(process, source, talk)
    if made is None:
        return
    # Filters that make HTML give strings of another kind there, which escape what is joined to them.
    if any(f"| {name})" in source for name in ("e", "safe", "tojson", "urlize", "striptags", "xmlattr")):
        return
    try:
        (theirs,), _ = render_jinja_template([talk], chat_template=source, bos_token="<s>", eos_token="</s>")
    except Exception as error:
        pytest.fail(f"rendered here, and not there: {error}")
    assert made.text == theirs


# --- what is no template at all ---------------------------------------------------------------------------------------

tokens = st.sampled_from(
    [
        *(
            "{{",
            "}}",
            "{%",
            "%}",
            "{#",
            "#}",
            "-",
            "for",
            "in",
            "if",
            "set",
            "endfor",
            "endif",
            "macro",
            "endmacro",
            "x",
        ),
        *(
            "messages",
            "|",
            "(",
            ")",
            "[",
            "]",
            "'",
            '"',
            "~",
            "+",
            "*",
            "**",
            "9" * 50,
            "range",
            "lipsum",
            "join",
            "batch",
        ),
        *(
            "__class__",
            ".",
            ",",
            "=",
            "namespace",
            "break",
            "continue",
            "import",
            "include",
            "call",
            "filter",
            "raw",
            " ",
        ),
        *(
            "loop",
            "self",
            "caller",
            "super",
            "block",
            "extends",
            "generation",
            "dict",
            "cycler",
            "\n",
            "\0",
            "\ud800",
            "é",
        ),
    ]
)


@short
@given(source=st.lists(tokens, max_size=40).map(" ".join) | st.text(max_size=60), talk=messages)
def test_anything_is_a_template_or_one_error(process: TemplateProcess, source: str, talk: Any) -> None:
    rendered(process, source, talk)


HEAVY = (
    "{% for a in range(99999) %}@{% endfor %}",
    "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}@",
    "{% macro r(x) %}{{ r(x ~ x) }}{% endmacro %}{{ r('ab') }}@",
    "{{ 'x' * 10 ** 9 }}@",
    "{{ ('x' * 9999) | replace('x', 'x' * 9999) }}@",
    "{{ [0] * 10 ** 8 }}@",
    "{{ 7 ** (7 ** 9) }}@",
    "{{ lipsum(n=10 ** 6) }}@",
    "{{ messages | tojson(indent=10 ** 9) }}@",
    "{{ '%999999999d' % 1 }}@",
    "{{ '{:>999999999}'.format(1) }}@",
    "{{ messages | batch(10 ** 9, 0) | list | length }}@",
    "{% if 1 %}" * 60 + "@" + "{% endif %}" * 60,
    "{{ " + "(" * 150 + "1" + ")" * 150 + " }}@",
)


@settings(short, max_examples=max(10, EXAMPLES // 10))
@given(parts=st.lists(st.sampled_from(HEAVY), min_size=1, max_size=3), talk=messages)
def test_nothing_takes_all_time_or_memory(process: TemplateProcess, parts: list[str], talk: Any) -> None:
    """Each inside of the one before."""
    source = "@"
    for part in parts:
        source = source.replace("@", part)
    rendered(process, source, talk)
    assert rendered(process, "{{ messages[0].content }}", talk) is not None


def test_the_process_ends_with_whoever_asks() -> None:
    import subprocess
    import sys

    program = (
        "from sublayer.text.chat import ChatTemplate\n"
        "from sublayer.text.templates.process import PROCESS\n"
        "import os, signal\n"
        "ChatTemplate('{{ messages }}').render([{'role': 'user', 'content': 'hi'}])\n"
        "print(PROCESS._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    number = int(done.stdout)
    for _ in range(500):
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            return
        state = Path(f"/proc/{number}/stat")
        if state.is_file() and state.read_text().rpartition(")")[2].split()[0] == "Z":
            return  # it has ended, and nobody has asked how
        time.sleep(0.02)
    pytest.fail("the process that renders chat templates outlived whoever had started it")
