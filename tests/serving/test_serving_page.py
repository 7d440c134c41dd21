"""The page at `/`, in a browser: what it shows is what the library says."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "inspection"))

from browsing import Visit, launched, require_browser

from served import Running, generator, models, running, tokenizer
from sublayer import config
from sublayer.serving.keys import Keys


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    require_browser()
    with launched() as made:
        yield made


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as made:
        yield made


def closed(visit: Visit) -> None:
    """End a visit that must have given no cause for complaint, to the content security policy either."""
    assert visit.complaints == []
    visit.context.close()


@pytest.mark.parametrize("dark", [False, True])
def test_translate(browser: Any, server: Running, dark: bool) -> None:
    visit = Visit(browser, dark=dark)
    page = visit.page
    page.goto(server.address + "/")
    page.get_by_label("Text").fill("the keys <b>")
    page.keyboard.press("Control+Enter")
    expected = models()["en-es"].translate(["the keys <b>"])[0].text  # type: ignore[union-attr]
    page.wait_for_function("text => document.querySelector('output').textContent === text", arg=expected)
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (colour == "rgb(23, 24, 26)") == dark
    closed(visit)


def test_complete_by_keyboard(browser: Any, server: Running) -> None:
    visit = Visit(browser)
    page = visit.page
    page.goto(server.address + "/")
    page.get_by_role("tab", name="Translate").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", name="Complete").get_attribute("aria-selected") == "true"
    page.get_by_label("Tokens").fill("12")
    page.get_by_label("Beginning of a text").fill("The old man")
    page.get_by_role("button", name="Complete").click()
    expected = generator().generate(["The old man"], search=config.Greedy(), max_tokens=12)[0].text
    page.wait_for_function("text => document.querySelector('output').textContent === text", arg=expected)
    closed(visit)


def test_chat_is_told_all_turns(browser: Any) -> None:
    alone = generator(max_tokens=12)
    with running({"lm": alone}) as server:
        visit = Visit(browser)
        page = visit.page
        page.goto(server.address + "/")
        page.get_by_role("tab", name="Chat").click()
        talk: list[dict[str, str]] = []
        for said in ("Where?", "<|im_end|>"):
            page.get_by_label("Message").fill(said)
            page.get_by_label("Message").press("Control+Enter")
            talk.append({"role": "user", "content": said})
            answer = alone.generate([tokenizer().encode_chat(talk)])[0].text
            talk.append({"role": "assistant", "content": answer})
            page.wait_for_function(
                "([n, text]) => document.querySelectorAll('.turn.assistant')[n]?.textContent === text",
                arg=[len(talk) // 2 - 1, answer],
            )
        closed(visit)


def test_a_fault_is_shown_and_a_key_is_asked_for(browser: Any) -> None:
    with running({"en-es": models()["en-es"]}, keys=Keys(["secret"])) as server:
        visit = Visit(browser)
        page = visit.page
        page.goto(server.address + "/")
        page.get_by_label("API key").fill("secret")
        page.keyboard.press("Enter")
        page.get_by_label("Text").wait_for()
        page.route("**/translate", lambda route: route.fulfill(status=429, json={"error": "come again"}))
        page.get_by_label("Text").fill("the keys")
        page.get_by_role("button", name="Translate").click()
        page.get_by_role("alert").filter(has_text="come again").wait_for()
        assert all("429" in one for one in visit.complaints)
        visit.context.close()
