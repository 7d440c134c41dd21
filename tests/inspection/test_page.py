"""The page in a real browser: what a user does, and what the user then sees, against what `look` says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from inspection.browsing import Visit, launched, require_browser, served
from inspection.loaded_models import SENTENCE, filler, generator, made, translator
from sublayer.inspection.html import write_html
from sublayer.inspection.loaded_model import describe
from sublayer.inspection.look import look
from sublayer.inspection.notebook import view as widget
from sublayer.inspection.view import Map, Question, Token, View, quantised, restored

MARKUP = '<img src=x onerror="document.title=1"><script>document.title=2</script> & keys'


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    require_browser()
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def addresses(browser) -> Iterator[dict[str, str]]:
    with served(translator()) as one, served(generator()) as two, served(filler()) as three:
        yield {"translate": one, "generate": two, "fill": three}


@pytest.fixture
def visit(browser) -> Iterator[Visit]:
    found = Visit(browser)
    yield found
    assert found.complaints == []
    found.context.close()


def asked(name: str, text: str = SENTENCE, **over: Any) -> View:
    return look(made(name)[0], Question.parse({"text": text, **over}, "test"))


def percent(weight: float) -> str:
    if weight >= 0.0995:
        return f"{int(weight * 100 + 0.5)} %"
    if weight >= 0.00095:
        return f"{weight * 100:.1f} %"
    return "<0.1 %" if weight > 0 else "0 %"


def read(visit: Visit) -> str:
    """The text that was typed, as its tokens show it, without spaces."""
    return "".join(visit.texts(".token.text:not(.made)")).replace("␣", "")


def selected(page: Any) -> list[int]:
    """Layer and head of the one on show."""
    return [int(part) for part in page.locator(".head.selected").get_attribute("data-head").split(".")[1:]]


# --- typing ------------------------------------------------------------------------------------------------------


def test_a_translation_appears(visit, addresses):
    page = visit.open(addresses["translate"])
    page.get_by_role("button", name="Where did you leave my keys?").wait_for()
    visit.read(SENTENCE)
    expected = asked("translate")
    shown = [token.text for token in expected.sequences["target"][:1] + expected.sequences["predicted"]]
    assert visit.texts("[data-strip=target] .token") == shown
    assert visit.texts("[data-strip=source] .token") == [token.text for token in expected.sequences["source"]]
    assert expected.output.by in page.locator(".output").inner_text()
    # A grid of all heads for each kind of attention.
    for title, name in (("Cross", "cross"), ("Encoder", "encoder"), ("Decoder", "decoder")):
        page.get_by_role("tab", name=title).click()
        one = next(each for each in expected.maps if each.name == name)
        assert page.locator(".head").count() == one.weights.shape[0] * one.weights.shape[1]
        assert page.locator(".arcs .word.row").count() == one.weights.shape[2]
        assert page.locator(".arcs .word.column").count() == one.weights.shape[3]


def test_an_example_is_a_click_away(visit, addresses):
    page = visit.open(addresses["generate"])
    page.get_by_role("button", name="The capital of France is").click()
    visit.settled()
    assert page.get_by_label("Text", exact=True).input_value() == "The capital of France is"
    assert page.locator(".token.made").count() == 16


def test_the_command_lines_text_is_read_at_once(visit, browser):
    with served(generator(), text=SENTENCE) as address:
        visit.open(address)
        visit.settled()
        assert read(visit) == SENTENCE.replace(" ", "")


# --- pointing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cross", "encoder", "decoder"])
def test_pointing_at_a_word_shows_its_row(visit, addresses, name):
    page = visit.open(addresses["translate"])
    visit.read(SENTENCE)
    page.get_by_role("tab", name=name.capitalize()).click()
    layer, head = selected(page)
    one = next(each for each in asked("translate").maps if each.name == name)
    row = restored(one.weights)[layer, head, 2]
    page.locator(".arcs .word.row").nth(2).hover()
    values = visit.texts(".arcs .value")
    assert [value for value in values if value] == [percent(weight) for weight in row if weight >= 0.005]
    assert page.locator(".arc.on path").count() == sum(row >= 0.005)
    assert page.locator(".arcs .word.row.here").count() == 1
    assert page.locator(".band").first.is_visible()
    # What it looks at is shaded in the text.
    strip = "source" if one.columns == "source" else "target"
    shades = page.locator(f"[data-strip={strip}] .token").evaluate_all(
        "all => all.map((one) => Number(one.style.getPropertyValue('--weight')))"
    )
    assert shades[: len(row)] == pytest.approx(row, abs=0.001)
    page.mouse.move(5, 5)
    assert not any(visit.texts(".arcs .value"))


def test_pointing_at_a_cell_of_the_matrix_names_it(visit, addresses):
    page = visit.open(addresses["translate"])
    visit.read(SENTENCE)
    page.get_by_role("tab", name="Encoder").click()
    page.get_by_role("button", name="Matrix").click()
    layer, head = selected(page)
    view = asked("translate")
    one, words = view.maps[1], view.sequences["source"]
    box = page.locator(".matrix .cells").bounding_box()
    band = page.locator(".band").first
    # The cell that is third from below and second from the right.
    size = one.weights.shape[2]
    page.mouse.move(box["x"] + box["width"] - 40, box["y"] + box["height"] - 70)
    place = band.bounding_box()
    side = place["height"]
    i = round((place["y"] - (box["y"] + box["height"] - 4 - side * size)) / side)
    across = page.mouse
    across.move(box["x"] + box["width"] - 4 - side * 1.5, place["y"] + side / 2)
    weight = restored(one.weights)[layer, head, i, size - 2]
    assert page.locator(".tip").inner_text() == f"{words[i].text} → {words[size - 2].text}{percent(weight)}"


# --- switching off -----------------------------------------------------------------------------------------------


def test_a_head_that_is_switched_off_changes_the_output(visit, addresses):
    page = visit.open(addresses["translate"])
    visit.read(SENTENCE)
    page.get_by_role("tab", name="Decoder").click()
    page.get_by_role("button", name="layer 1 head 2").click()
    page.get_by_role("switch").click()
    visit.settled()
    page.locator(".compare").wait_for()
    off = asked("translate", silenced=[{"map": "decoder", "layer": 1, "head": 2}])
    whole = asked("translate")
    assert off.output.text != whole.output.text
    shown = [token.text for token in off.sequences["target"][:1] + off.sequences["predicted"]]
    assert visit.texts("[data-strip=target] .token") == shown
    assert page.locator(".compare .before").inner_text().split() != page.locator(".compare .after").inner_text().split()
    assert page.locator(".compare mark").count() > 0
    assert page.get_by_role("switch").get_attribute("aria-checked") == "false"
    assert page.locator(".head.off").count() == 1
    assert page.get_by_role("tab", name="Decoder").get_attribute("data-off") == "1"
    page.get_by_role("button", name="all heads on").click()
    visit.settled()
    page.locator(".head.off").wait_for(state="detached")
    shown = [token.text for token in whole.sequences["target"][:1] + whole.sequences["predicted"]]
    assert visit.texts("[data-strip=target] .token") == shown


# --- steps -------------------------------------------------------------------------------------------------------


def test_step_by_step_with_the_candidates(visit, addresses):
    page = visit.open(addresses["translate"])
    visit.read(SENTENCE)
    view = asked("translate")
    page.get_by_role("button", name="to the first step").click()
    for step in range(3):
        one = view.predictions[step]
        assert page.locator(".where").inner_text() == f"step {step + 1} of {len(view.predictions)}"
        assert page.locator("[data-strip=target] .token:not(.ghost)").count() == step + 1
        names = visit.texts(".candidate .name")
        shown = list(one.candidates)
        if one.chosen.id not in [each.id for each in shown]:
            shown = [*shown[:-1], one.chosen]
        assert names == [each.text for each in shown]
        assert visit.texts(".candidate .number") == [percent(each.probability) for each in shown]
        assert visit.texts(".taken .name") == [one.chosen.text]
        page.get_by_role("button", name="a step on").click()
    page.get_by_role("button", name="a step back").click()
    assert page.locator(".where").inner_text().startswith("step 3")


def test_another_candidate_may_be_taken(visit, addresses):
    page = visit.open(addresses["translate"])
    visit.read(SENTENCE)
    view = asked("translate")
    page.get_by_role("button", name="to the first step").click()
    other = view.predictions[0].candidates[2]
    page.get_by_role("button", name=other.text).nth(0).click()
    visit.settled()
    page.get_by_text("from the chosen token on").wait_for()
    expected = asked("translate", forced=[other.id])
    shown = [token.text for token in expected.sequences["target"][:1] + expected.sequences["predicted"]]
    assert visit.texts("[data-strip=target] .token") == shown


def test_a_text_grows_token_by_token(visit, addresses):
    page = visit.open(addresses["generate"])
    page.get_by_label("New tokens").select_option("1")
    visit.read(SENTENCE)
    assert page.locator(".token.made").count() == 1
    page.get_by_role("button", name="to the first step").click()
    longer = asked("generate", tokens=3)
    for made_ in (2, 3):
        # One press at a time: what is pressed while the model is at work does not count, and what comes later does.
        while page.locator(".token.made").count() < made_:
            page.keyboard.press(".")
            visit.settled()
    assert visit.texts(".token.made") == [token.text for token in longer.sequences["text"][longer.made :]]


def test_play(visit, addresses):
    page = visit.open(addresses["translate"])
    visit.read(SENTENCE)
    page.evaluate("document.querySelector('.sublayer').focus()")
    page.keyboard.press("Space")
    page.get_by_text("step 2 of").wait_for()
    page.keyboard.press("Escape")
    assert page.locator("[data-step=play]").get_attribute("aria-pressed") == "false"


# --- the lens, masks -----------------------------------------------------------------------------------------------


def test_the_lens_is_a_table(visit, addresses):
    page = visit.open(addresses["translate"])
    visit.read(SENTENCE)
    lens = asked("translate").lens
    rows = page.locator(".lens-panel tbody tr")
    assert rows.count() == len(lens.layers)
    for place, (name, cells) in enumerate(zip(reversed(lens.layers), reversed(lens.cells), strict=True)):
        assert rows.nth(place).locator("th").inner_text() == name
        assert rows.nth(place).locator("td").all_inner_texts() == [cell[0].text for cell in cells]


def test_the_lens_of_a_long_text_comes_with_the_step(visit, browser, monkeypatch):
    from sublayer.inspection import evidence

    monkeypatch.setattr(evidence, "LENS_WORK", 2 * 32 * 300 * 4 * 5)
    with served(generator()) as address:
        page = visit.open(address)
        visit.read(SENTENCE)
        assert page.locator(".lens-panel thead th[data-at]").count() == 5
        first = page.locator(".lens-panel thead th[data-at]").first.get_attribute("data-at")
        page.keyboard.press("Home")
        page.wait_for_function(f"() => document.querySelector('.lens-panel th[data-at]').dataset.at !== '{first}'")
        assert page.locator(".lens-panel thead th.here").count() == 1


def test_a_mask_is_filled(visit, addresses):
    page = visit.open(addresses["fill"])
    visit.read("the [MASK] sat on a mat")
    view = asked("fill", "the [MASK] sat on a mat")
    assert visit.texts(".candidate .name") == [one.text for one in view.predictions[2].candidates]
    page.locator(".token").nth(3).click()
    page.mouse.move(5, 5)
    shown = [one.text for one in view.predictions[3].candidates]
    names = visit.texts(".candidate .name")
    assert names[:7] == shown[:7]


@pytest.mark.parametrize("name", ["classify", "tag", "embed", "encode"])
def test_what_other_readers_say(visit, browser, name):
    loaded, text = made(name)
    with served(loaded) as address:
        page = visit.open(address)
        visit.read(text)
        output = page.locator(".output").inner_text()
        view = look(loaded, Question(text=text))
        match name:
            case "classify":
                assert [label for label, _ in view.output.labels] == visit.texts(".output .name")
            case "tag":
                assert [tag for tag, _ in view.output.tags][1:-1] == visit.texts(".tag span")
            case "embed":
                assert "vector of 16 numbers" in output
            case _:
                assert "no head" in output
        page.get_by_role("switch").click()
        page.locator(".head.off").wait_for()
        visit.settled()


# --- theme, keys, sizes ------------------------------------------------------------------------------------------


def test_dark_and_light(browser, addresses):
    grounds = []
    for dark in (False, True):
        visit = Visit(browser, dark=dark)
        page = visit.open(addresses["fill"])
        page.locator(".sublayer").wait_for()
        ground = "getComputedStyle(document.querySelector('.sublayer')).backgroundColor"
        grounds.append(page.evaluate(ground))
        page.locator(".theme").click()
        page.locator(".sublayer[data-look=light]").wait_for()
        page.locator(".theme").click()
        page.locator(".sublayer[data-look=dark]").wait_for()
        grounds.append(page.evaluate(ground))
        assert visit.complaints == []
        visit.context.close()
    light, to_dark, dark_, again = grounds
    assert light != dark_
    assert to_dark == dark_ == again


def test_keys(visit, addresses):
    page = visit.open(addresses["translate"])
    page.keyboard.press("/")
    page.keyboard.type(SENTENCE)
    page.keyboard.press("Enter")
    visit.settled()
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    assert page.get_by_role("tab", name="Encoder").get_attribute("aria-selected") == "true"
    for _ in range(5):
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert selected(page) == [1, 1]
    assert page.evaluate("document.activeElement.dataset.head") == "encoder.1.1"
    page.keyboard.press("x")
    page.locator(".head.off").wait_for()
    page.keyboard.press("r")
    page.locator(".head.off").wait_for(state="detached")
    page.keyboard.press("Shift+X")
    page.wait_for_function("() => document.querySelectorAll('.head.off').length === 4")
    page.keyboard.press("r")
    visit.settled()
    page.keyboard.press("m")
    assert not page.locator(".arcs").is_visible()
    page.keyboard.press("a")
    assert not page.locator(".matrix").is_visible()
    page.keyboard.press("b")
    assert page.locator(".matrix").is_visible()
    page.keyboard.press("t")
    page.locator(".sublayer[data-look=light]").wait_for()
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    assert "from head to head" in page.get_by_role("dialog").inner_text()
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog").is_visible()
    page.keyboard.press("Home")
    page.keyboard.press(".")
    assert page.locator(".where").inner_text().startswith("step 2")
    page.keyboard.press("End")
    assert page.locator(".where").inner_text().endswith("steps")


@pytest.mark.parametrize("width", [420, 900])
def test_a_narrow_window(browser, addresses, width):
    visit = Visit(browser, width=width)
    page = visit.open(addresses["translate"])
    visit.read(SENTENCE)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert visit.complaints == []
    visit.context.close()


def test_two_hundred_tokens_stay_usable(visit, addresses):
    page = visit.open(addresses["generate"])
    visit.read("The old man looks at the sea. " * 16)
    count = page.locator("[data-strip=text] .token").count()
    assert count > 200
    assert page.locator(".arcs .word.row").count() == count
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.evaluate(
        """async () => {
            const word = document.querySelectorAll('[data-strip=text] .token')[140];
            word.dispatchEvent(new PointerEvent('pointerenter'));
            await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
        }"""
    )
    assert page.locator(".arcs .word.row.here").count() == 1
    page.locator(".arcs .word.row.here").wait_for()
    # It was brought into sight.
    assert page.evaluate(
        """() => {
            const [word, pane] = ['.word.row.here', '.scroll']
                .map((one) => document.querySelector(`.arcs ${one}`).getBoundingClientRect());
            return word.top >= pane.top && word.bottom <= pane.bottom;
        }"""
    )


# --- what goes wrong ---------------------------------------------------------------------------------------------


def test_markup_in_the_text_is_shown_and_never_runs(visit, addresses):
    page = visit.open(addresses["generate"])
    visit.read(MARKUP)
    page.wait_for_timeout(50)
    assert page.title() == "small · sublayer"
    assert page.locator("img").count() == 0
    assert read(visit) == MARKUP.replace(" ", "")


def test_errors_are_told_and_gone_with_the_next_text(browser, addresses):
    visit = Visit(browser)
    page = visit.open(addresses["translate"])
    visit.read("keys " * 60)
    problem = page.get_by_role("alert")
    assert "positions end at 48" in problem.inner_text()
    assert "Split it into sentences." in problem.inner_text()
    visit.read(SENTENCE)
    assert not problem.is_visible()
    # The browser itself notes the refused request, and nothing else is wrong.
    assert all("400 (Bad Request)" in one for one in visit.complaints)
    visit.context.close()


def test_an_empty_text_is_the_beginning_again(visit, addresses):
    page = visit.open(addresses["translate"])
    visit.read(SENTENCE)
    page.get_by_label("Text", exact=True).fill("   ")
    page.keyboard.press("Enter")
    page.locator(".empty").wait_for()
    assert not page.locator(".main").is_visible()


def test_unknown_characters_are_shown_as_typed(visit, addresses):
    page = visit.open(addresses["fill"])
    visit.read("the 猫 sat on Ω")
    assert page.locator(".token.unknown").count() == 2
    assert page.locator(".token.unknown").first.get_attribute("title") == "not in the vocabulary"


def test_a_server_that_is_gone_is_told(browser):
    visit = Visit(browser)
    with served(filler()) as address:
        page = visit.open(address)
        visit.read("the cat")
    page.get_by_label("Text", exact=True).fill("the dog")
    page.keyboard.press("Enter")
    page.get_by_role("alert").wait_for()
    assert "the server does not reply" in page.get_by_role("alert").inner_text()
    visit.context.close()


def test_a_second_tab(visit, addresses):
    first = visit.open(addresses["translate"])
    visit.read(SENTENCE)
    second = visit.tab()
    second.goto(addresses["translate"])
    second.get_by_label("Text", exact=True).fill("The old man.")
    second.keyboard.press("Enter")
    second.locator("[data-strip=target]").wait_for()
    first.keyboard.press("x")
    first.locator(".head.off").wait_for()
    visit.settled()
    assert second.locator(".head.off").count() == 0
    own = asked("translate", "The old man.")
    shown = [token.text for token in own.sequences["target"][:1] + own.sequences["predicted"]]
    assert second.locator("[data-strip=target] .token").all_inner_texts() == shown


# --- one file, and a notebook ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["translate", "generate", "fill", "embed"])
def test_the_file_opens_from_the_disk(visit, tmp_path, name):
    loaded, text = made(name)
    view = look(loaded, Question(text=text), about=describe(loaded, MARKUP))
    write_html(view, tmp_path / "view.html")
    page = visit.open((tmp_path / "view.html").as_uri())
    visit.settled()
    assert page.locator(".sublayer").get_attribute("data-status") == "ready"
    assert page.locator(".model").inner_text() == MARKUP.strip()
    strip = "source" if name == "translate" else "text"
    assert visit.texts(f"[data-strip={strip}] .token") == [token.text for token in view.sequences[strip]]
    # Nothing to ask: no form, no switch; and nothing is fetched.
    assert page.locator("textarea, [role=switch]").count() == 0
    assert {one.partition(":")[0] for one in visit.requests} <= {"file", "data"}
    page.locator(".arcs .word.row").nth(1).hover()
    assert any(visit.texts(".arcs .value"))
    page.keyboard.press("ArrowRight")
    if view.predictions and name != "fill":
        page.get_by_role("button", name="to the first step").click()
        assert page.locator(".candidate").count() == 8


def test_markup_in_a_file_never_runs(visit, tmp_path):
    loaded = generator()
    text = f"</script>{MARKUP}<!-- </style>"
    write_html(look(loaded, Question(text=text, tokens=2)), tmp_path / "view.html")
    page = visit.open((tmp_path / "view.html").as_uri())
    visit.settled()
    assert "sublayer" in page.title()
    assert page.locator("img").count() == 0
    assert read(visit) == text.replace(" ", "")


def large_view(layers: int, heads: int, tokens: int) -> View:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(layers, heads, tokens, tokens)) * 3 - 1e9 * (1 - np.tri(tokens))
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return replace(
        asked("generate", tokens=0),
        sequences={"text": tuple(Token(i, f"word{i}") for i in range(tokens))},
        maps=[Map("decoder", "", "text", "text", True, quantised(weights / weights.sum(-1, keepdims=True)))],
    )


def test_a_view_of_the_size_of_gpt_2_opens(visit, tmp_path):
    """12 layers, 12 heads, 128 tokens; how long that takes is measured by benchmarks/page_opening.py."""
    write_html(large_view(12, 12, 128), tmp_path / "view.html")
    page = visit.open((tmp_path / "view.html").as_uri())
    visit.settled()
    assert page.locator("[data-strip=text] .token").count() == 128
    assert page.evaluate("performance.getEntriesByName('sublayer-view').length") == 1


NOTEBOOK = """
async ([esm, css, view, path]) => {
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(css);
    document.adoptedStyleSheets = [sheet];
    const { default: widget } = await import(URL.createObjectURL(new Blob([esm], { type: 'text/javascript' })));
    const heard = [];
    const model = {
        get: (name) => ({ view, live: true })[name],
        on: (name, act) => heard.push(act),
        off: () => {},
        send: async (message) => {
            const reply = JSON.parse(await window.kernel(JSON.stringify(message)));
            for (const act of heard) act(reply);
        },
    };
    const el = document.body.appendChild(document.createElement('div'));
    widget.render({ model, el });
}
"""


def test_a_notebook_draws_the_same_and_asks_its_kernel(visit):
    shown = widget(translator(), SENTENCE, target="The old man.", name="small")
    sent: list[Any] = []
    shown.send = sent.append

    def kernel(message: str) -> str:
        shown._hear(shown, json.loads(message), [])
        return json.dumps(sent.pop())

    page = visit.page
    page.expose_function("kernel", kernel)
    page.goto("about:blank")
    page.evaluate(NOTEBOOK, [shown._esm, shown._css, shown.view, ""])
    visit.settled()
    whole = asked("translate", target="The old man.")
    assert visit.texts("[data-strip=source] .token") == [token.text for token in whole.sequences["source"]]
    page.get_by_role("tab", name="Decoder").click()
    page.get_by_role("button", name="layer 1 head 2").click()
    page.get_by_role("switch").click()
    page.locator(".compare").wait_for()
    # The translation that was given is still the one that is read.
    off = asked("translate", target="The old man.", silenced=[{"map": "decoder", "layer": 1, "head": 2}])
    words = [token.text for token in off.sequences["target"][:1] + off.sequences["predicted"]]
    assert visit.texts("[data-strip=target] .token") == words
    difference = f"{off.output.log_probability - whole.output.log_probability:+.2f}".replace("-", "−")
    assert f"the same words, log P {difference}" in page.locator(".compare").inner_text()
    visit.read("keys " * 60)
    assert "positions end at 48" in page.get_by_role("alert").inner_text()
