"""HTML whose sentences have markup inside: translated whole, and the markup stands where the words went."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from hypothesis import example, given
from hypothesis import strategies as st

from recurrent_models import PAIRS
from recurrent_models import build as build_recurrent
from served import Running, models, running, tokenizer, translator
from small_run import sublayer, write
from sublayer import config
from sublayer.generation.translator import Translator
from sublayer.hub.folder import load_translator
from sublayer.serving import marked, markup
from sublayer.serving.aligning import aligned, spans_of, starts_of
from sublayer.serving.html_tokens import VOID, tokens
from sublayer.serving.marked import Sentence
from sublayer.serving.markup import Flow
from sublayer.serving.placing import Aligned, best_cuts, needs_alignment, placed

TAG = re.compile(r"<[^>]*>")
WORD = re.compile(r"\w+|[^\w\s]")


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as made:
        yield made


def sent(server: Running, html: Any, **more: Any) -> Any:
    body = {"q": html, "source": "en", "target": "es", "format": "html"} | more
    reply = requests.post(f"{server.address}/translate", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    return reply.json()["translatedText"]


def said(text: str) -> str:
    own = models()["en-es"]
    assert isinstance(own, Translator)
    return own.translate([text])[0].text


def the_sentence(html: str) -> Sentence:
    """The one sentence of a piece of HTML."""
    [flow] = markup.parts(html)
    assert isinstance(flow, Flow)
    [sentence] = [part for part in marked.of_flow(flow, lambda _: True) if isinstance(part, Sentence)]
    return sentence


def by_words(html: str, translation: str, pairs: str) -> str:
    """With an attention that looks at one word for each: the numbers of the words of the sentence, in order."""
    sentence = the_sentence(html)
    source, target = ([found.span() for found in WORD.finditer(text)] for text in (sentence.text, translation))
    weights = np.full((len(target), len(source)), 0.05)
    for row, column in enumerate(map(int, pairs.split())):
        weights[row, column] = 1.0
    return placed(sentence, translation, Aligned(source, [start for start, _ in target], weights))


@pytest.mark.parametrize(
    ("html", "translation", "pairs", "expected"),
    [
        ("Where <b>are they</b>?", "¿Dónde están ellas?", "0 0 1 2 3", "¿Dónde <b>están ellas</b>?"),
        # The order changes: what is not marked stays outside.
        (
            "I like <b>red</b> cars.",
            "Me gustan los coches rojos.",
            "0 1 3 3 2 4",
            "Me gustan los coches <b>rojos</b>.",
        ),
        ("<b>Hello</b> world!", "Mundo hola!", "1 0 2", "Mundo <b>hola</b>!"),
        # Elements inside of others, and pictures.
        (
            "a <i><b>b</b> c</i> <img src=q> d",
            "A B C D",
            "0 1 2 3",
            "A <i><b>B</b> C</i> <img src=q> D",
        ),
        # What is kept stands in the place of what it has become.
        ("Call <code>f_x</code> &lt; go", "llama a efe < ve", "0 0 1 2 3", "llama a <code>f_x</code> &lt; ve"),
        # A word with a tag inside of it.
        ("H<sub>2</sub>O is wet", "H2O es húmedo", "0 1 2", "H<sub>2</sub>O es húmedo"),
        # Marks around all of it need no attention.
        ("<i><b>All.</b></i>", "Todo.", "0 1", "<i><b>Todo.</b></i>"),
        # No word is left for an element.
        ("<b>a</b> b", "B", "1", "<b>B</b>"),
        # Without spaces between words.
        ("red <b>car</b>", "赤い車", "0", "赤い<b>車</b>"),
    ],
)  # fmt: skip
def test_where_marks_stand(html: str, translation: str, pairs: str, expected: str) -> None:
    if translation == "赤い車":
        sentence = the_sentence(html)
        found = placed(sentence, translation, Aligned([(0, 3), (4, 7)], [0, 2], np.eye(2)))
    elif translation == "H2O es húmedo":
        sentence = the_sentence(html)
        spans = [(0, 1), (1, 2), (2, 3), (4, 6), (7, 10)]
        found = placed(sentence, translation, Aligned(spans, [0, 1, 2, 3, 6], np.eye(5)))
    else:
        found = by_words(html, translation, pairs)
    assert found == expected


def test_a_space_that_is_a_token_of_its_own() -> None:
    aligned = Aligned([(0, 1), (2, 3), (4, 5)], [0, 1, 2], np.eye(3))
    assert placed(the_sentence("p <b>q</b> r"), "P R", aligned) == "P <b></b>R"


@given(
    st.integers(0, 6).flatmap(lambda units: st.tuples(st.just(units), st.integers(1, 4))),
    st.randoms(use_true_random=False),
)
def test_the_best_cut_is_found(shape: tuple[int, int], draw: Any) -> None:
    """All cuts are tried."""
    units, parts = shape
    scores = np.array([[draw.choice([0.0, 0.5, 1.0, draw.random()]) for _ in range(parts)] for _ in range(units)])
    scores = scores.reshape(units, parts)
    costs = [draw.choice([0.0, 2.0]) for _ in range(parts)]

    def worth(cuts: tuple[int, ...]) -> float:
        spans = list(itertools.pairwise(cuts))
        return sum(scores[a:b, n].sum() - costs[n] * (a == b) for n, (a, b) in enumerate(spans))

    every = [(0, *cuts, units) for cuts in itertools.combinations_with_replacement(range(units + 1), parts - 1)]
    found = tuple(best_cuts(scores, costs))
    assert found in every
    assert worth(found) == pytest.approx(max(map(worth, every)), abs=1e-9)


# --- laws ------------------------------------------------------------------------------------------------------------

INSIDE = st.recursive(
    st.sampled_from(
        ["the keys", "a", " ", "old man", "猫 犬", "x &lt; y &amp; z", "naïve ", ", and ", "H", "\n  ", "🙂"]
    ),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["b", "i", "a href='#x'", 'span class="q"']), inner).map(
            lambda pair: f"<{pair[0]}>{pair[1]}</{pair[0].split()[0]}>"
        ),
        st.lists(inner, max_size=4).map("".join),
        st.sampled_from(["<img src=x alt='the'>", "<!-- the note -->", "<wbr>"]),
    ),
    max_leaves=12,
)
KEPT = st.sampled_from(
    ["<code>f(x)</code>", "<span translate='no'>Tom. Bob</span>", "<svg><path d=''/></svg>", "<b>y</b>"]
)


class _Nesting(HTMLParser):
    """Raises where an end tag ends something else than what was opened last."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@given(INSIDE, st.text(alphabet="ab Ñ.,'猫犬<&5", max_size=25), st.randoms(use_true_random=False))
def test_marks_stand_once_in_order_and_the_words_are_the_translation(html: str, words: str, draw: Any) -> None:
    """Whatever the attention says."""
    for part in markup.parts(html):
        for sentence in [] if isinstance(part, str) else marked.of_flow(part, lambda text: len(text) < 12):
            if isinstance(sentence, str) or not sentence.has_words:
                continue
            text = words.strip()
            starts = sorted({0, *(draw.randrange(len(text) + 1) for _ in range(5))}) if text else []
            spans = [found.span() for found in WORD.finditer(sentence.text)] or [(0, len(sentence.text))]
            weights = np.array([[draw.random() ** 3 for _ in spans] for _ in starts])
            found = placed(sentence, text, Aligned(spans, starts, weights) if text else None)
            assert TAG.findall(found) == [mark.raw.strip() for mark in sentence.marks]
            bare = TAG.sub("", found)
            # A picture between two spaces keeps both.
            assert "".join(unescape(bare).split()) == "".join(text.split())
            if not any(mark.kind == "void" for mark in sentence.marks):
                assert unescape(bare) == text


@given(INSIDE, KEPT, INSIDE)
@example("naïve ", "<span translate='no'>Tom. Bob</span>", "<img src=x alt='the'> the keys")
def test_what_is_not_translated_is_as_it_was(before: str, kept: str, after: str) -> None:
    """With every sentence in the place of its translation, HTML says what it said; only white space may be less."""
    html = before + kept + after
    parts = [
        piece
        for part in markup.parts(html)
        for piece in ([part] if isinstance(part, str) else marked.of_flow(part, lambda text: len(text) < 20))
    ]
    again = "".join(part if isinstance(part, str) else part.untranslated for part in parts)

    assert TAG.findall(again) == TAG.findall(html)
    for found, before in zip(TAG.split(again), TAG.split(html), strict=True):
        # White space at the end of an element may have moved out of it.
        assert "".join(unescape(found).split()) == "".join(unescape(before).split())


HOSTILE = st.text(alphabet=st.sampled_from("ab<>/!-&;#x1=\"' pscript"), max_size=60)


@given(HOSTILE | INSIDE)
def test_the_tokens_are_the_text(html: str) -> None:
    assert "".join(token.raw for token in tokens(html)) == html


@given(HOSTILE)
def test_any_text_is_read_as_html(text: str) -> None:
    def again(html: str) -> str:
        found = [
            piece
            for part in markup.parts(html)
            for piece in ([part] if isinstance(part, str) else marked.of_flow(part, lambda _: True))
        ]
        return "".join(part if isinstance(part, str) else part.untranslated for part in found)

    # What is not translated is written as it was read, so that it is the same once more.
    once = again(text)
    assert again(once) == once


@given(INSIDE, KEPT, INSIDE)
def test_tags_are_those_that_pythons_parser_finds(before: str, kept: str, after: str) -> None:
    class Tags(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.found: list[tuple[str, str, dict[str, str | None]]] = []

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            self.found.append(("open", tag, dict(attrs)))

        def handle_startendtag(self, tag: str, attrs: Any) -> None:
            self.handle_starttag(tag, attrs)

        def handle_endtag(self, tag: str) -> None:
            self.found.append(("close", tag, {}))

    html = f"{before}{kept}<input  disabled value = 'a>b' A=\"&amp;x\" title=it's checked/>{after}<B CLASS=q>x</B >"
    parser = Tags()
    parser.feed(html)
    parser.close()
    own = [
        ("close" if token.kind == "close" else "open", token.name, token.attributes)
        for token in tokens(html)
        if token.kind in ("open", "void", "close")
    ]
    assert own == [(kind, tag, {name: value or "" for name, value in said.items()}) for kind, tag, said in parser.found]


@pytest.mark.parametrize(
    "unit", ["<", "<!--", "</", "<a ", "<a b='", '<a b="x', "<b>", "</i>", "<b>x", "&#", "<code>x. </code> "]
)
def test_long_texts_are_read_in_time(unit: str) -> None:
    """Work is counted, not time: a text of twice the length takes some twice as many lines of code to read."""

    def lines(count: int) -> int:
        done = 0

        def count_lines(frame: Any, event: str, _: Any) -> Any:
            nonlocal done
            done += event == "line"
            return count_lines

        before = sys.gettrace()
        sys.settrace(count_lines)
        try:
            for part in markup.parts(unit * count):
                if not isinstance(part, str):
                    marked.of_flow(part, lambda text: len(text) < 100)
        finally:
            sys.settrace(before)
        return done

    assert lines(800) < 2.5 * lines(400) + 1000


# --- a running server ------------------------------------------------------------------------------------------------


def test_a_sentence_with_tags_is_translated_whole(server: Running) -> None:
    html = (
        "<p>The <b>old man</b> looks at <a href='/x?a=1&amp;b=2'>the sea</a> and thinks of the house.</p>\n"
        "<ul><li>Where are <i>my</i> keys?<li>On the table, <em>near</em> the door!</ul>"
    )
    found = sent(server, html)
    assert TAG.findall(found) == TAG.findall(html)
    texts = [unescape(TAG.sub("", each)).strip() for each in re.split(r"</?(?:p|ul|li)>", found)]
    plain = (
        "The old man looks at the sea and thinks of the house.",
        "Where are my keys?",
        "On the table, near the door!",
    )
    assert [text for text in texts if text] == [said(text) for text in plain]
    nesting = _Nesting()
    nesting.feed(found.replace("<li>", ""))
    assert nesting.open == []


def test_alternatives_have_their_own_places(server: Running) -> None:
    body = {"q": "The <b>old man</b> looks", "source": "en", "target": "es", "format": "html", "alternatives": 2}
    reply = requests.post(f"{server.address}/translate", json=body, timeout=60).json()
    found = [reply["translatedText"], *reply["alternatives"]]
    best = translator().translate(["The old man looks"], beam=3, n_best=3)[0].n_best
    assert [unescape(TAG.sub("", text)) for text in found] == [one.text for one in best]
    assert all(TAG.findall(text) == ["<b>", "</b>"] for text in found)


def test_what_is_kept(server: Running) -> None:
    html = (
        "<p>The keys <code>of(the) &lt; x</code> are <span translate=no>Tom's</span>, on <kbd class=k>the</kbd> table."
        "<script>if (a < b) the()</script></p><pre>the code\n  &amp;</pre><p class=notranslate>The <b>old</b></p>"
    )
    found = sent(server, html)
    kept = ("<code>of(the) &lt; x</code>", "<span translate=no>Tom's</span>", "<kbd class=k>the</kbd>")
    for part in (*kept, "<script>if (a < b) the()</script>", "<pre>the code\n  &amp;</pre>"):
        assert found.count(part) == 1
    assert found.endswith("<p class=notranslate>The <b>old</b></p>")
    assert sent(server, "<code>the keys</code>") == "<code>the keys</code>"


def test_what_would_take_too_long_is_refused(server: Running) -> None:
    html = "the <b>a</b>" * 60 + "keys"
    assert TAG.findall(sent(server, html)) == TAG.findall(html), "it is cut into what the model can read"
    body = {"q": f"the {'<b></b>' * 300}keys", "source": "en", "target": "es", "format": "html"}
    reply = requests.post(f"{server.address}/translate", json=body, timeout=60)
    assert reply.status_code == 400
    assert "over 400 tags" in reply.json()["error"]


def test_in_company_as_alone(server: Running) -> None:
    """Attention is looked at between the steps of the others, and changes nothing of theirs."""
    texts = [f"<p>The <b>old man</b> looks at <i>the {thing}</i>.</p>" for thing in ("sea", "house", "table", "door")]
    alone = [sent(server, text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda text: sent(server, text), texts * 6))
    assert together == alone * 6


def test_the_spans_of_tokens_are_the_texts() -> None:
    own = translator()
    for text in ("The old man, naïve 🙂 猫", "a  b"):
        [ids] = own.encode([text])
        spans = spans_of(own, text)
        assert len(spans) == len(ids)
        assert {at for begin, end in spans for at in range(begin, end)} == {n for n, c in enumerate(text) if c != " "}
        tokens = own.tokenizer.encode([f" {text} "])[0]
        starts = starts_of(own.tokenizer, tokens)
        assert starts == sorted(starts)
        assert {0 <= start <= len(text) for start in starts} == {True}
        [decoded] = own.tokenizer.decode([tokens])
        assert decoded.strip() == text


@pytest.mark.slow
def test_a_model_that_turns_words_around(tmp_path: Path) -> None:
    """Of "a <b>b</b> c d" it makes "d c <b>b</b> a", where it looks at the words that it says."""
    recipe = write(tmp_path, lines=150, training={"steps": 500, "batches": {"tokens": 300}, "validate_every": 500})
    outcome = sublayer("train", recipe, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    own = load_translator(tmp_path / "run")
    tried = 0
    right = {-1: 0, 0: 0, 1: 0}
    for line in (tmp_path / "text.src").read_text().splitlines():
        words = line.split()
        said = own.translate([line], beam=1)[0]
        if said.text.split() != words[::-1]:
            continue
        [found] = aligned(own, [(line, own.encode([line])[0])], [said.tokens])
        for place in range(len(words)):
            html = [*words[:place], f"<b>{words[place]}</b>", *words[place + 1 :]]
            sentence, tried = the_sentence(" ".join(html)), tried + 1
            for shift in right:
                # As though each word were said while the model looked at the one before it, or after it.
                moved = replace(found, weights=np.roll(found.weights, shift, axis=1))
                right[shift] += placed(sentence, said.text, moved) == " ".join(html[::-1])
    assert tried > 50
    assert right[0] > tried / 2
    assert right[0] > 2 * max(right[-1], right[1])


def test_a_model_without_attention_goes_at_an_even_pace() -> None:
    assert PAIRS[0].decoder.attention == config.NoAttention()
    model: Any = build_recurrent(PAIRS[0].model_copy(update={"vocab_size": tokenizer().vocab_size}))
    own = Translator(model, tokenizer(), config.Decoding())
    [ids] = own.encode(["the keys"])
    [found] = aligned(own, [("the keys", ids)], [[7, 8, 9, 10]])
    assert found.weights.shape == (4, len(ids))
    assert (np.diff(found.weights.argmax(axis=1)) >= 0).all()
    assert not needs_alignment(Sentence("the keys"))
