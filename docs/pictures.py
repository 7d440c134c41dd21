"""Takes the pictures of the page (`sublayer inspect`) that stand in docs/pictures, with models that are given.

    python docs/pictures.py --translator runs/tatoeba-en-es --llm models/smollm2

Needs `sublayer[inspect]`, Playwright's Python package and a chromium.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sublayer.hub.folder import read
from sublayer.inspection.inspector import Inspector
from sublayer.inspection.listening import addresses, bound
from sublayer.inspection.loaded_model import describe, folder_name, held_out
from sublayer.inspection.server import application

FOLDER = Path(__file__).with_name("pictures")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--translator", type=Path, help="a model that translates")
    parser.add_argument("--sentence", default="The old man lives in a small house near the sea.")
    parser.add_argument("--llm", type=Path, help="a language model")
    parser.add_argument("--prompt", default="When Mary and John went to the store, John gave a drink to")
    parser.add_argument(
        "--tokens", type=int, choices=(1, 8, 16, 32, 64), default=8, help="what the language model adds"
    )
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    given = parser.parse_args()
    from playwright.sync_api import sync_playwright

    given.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=given.chromium, args=ARGUMENTS)
        if given.translator:
            with served(given.translator) as address:
                translation(browser, address, given.sentence, given.out)
        if given.llm:
            with served(given.llm) as address:
                continuation(browser, address, given.prompt, given.tokens, given.out)
        browser.close()


def translation(browser: Any, address: str, sentence: str, out: Path) -> None:
    """In light, with the pointer at a word; in dark, in the midst of the steps, with a head switched off."""
    with visit(browser, address) as page:
        type_in(page, sentence)
        page.locator("[data-strip=target] .token.made").nth(3).hover()
        keep(page, out / "page-translation.png")
    with visit(browser, address, dark=True) as page:
        type_in(page, sentence)
        page.get_by_role("switch").click()
        page.locator(".compare").wait_for(timeout=120_000)
        page.locator(".sublayer").focus()
        page.keyboard.press("Home")
        for _ in range(4):
            page.keyboard.press(".")
        page.mouse.move(0, 0)
        keep(page, out / "page-head-off.png")


def continuation(browser: Any, address: str, prompt: str, tokens: int, out: Path) -> None:
    """In light and in dark, at the step at which the model writes its first token."""
    for dark, name in ((False, "page-llm.png"), (True, "page-llm-dark.png")):
        with visit(browser, address, dark=dark) as page:
            page.get_by_label("New tokens").select_option(str(tokens))
            type_in(page, prompt)
            page.keyboard.press("Home")
            keep(page, out / name)


def type_in(page: Any, text: str) -> None:
    field = page.get_by_label("Text", exact=True)
    field.fill(text)
    field.press("Enter")
    page.locator(".sublayer[data-status=ready]").wait_for(timeout=120_000)
    page.locator(".sublayer").focus()


def keep(page: Any, path: Path) -> None:
    """The page as a PNG of 256 colours, which is a third as large and looks the same."""
    from PIL import Image

    page.wait_for_timeout(400)
    page.screenshot(path=path, full_page=True)
    with Image.open(path) as taken:
        small = taken.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    print(f"{path}  {path.stat().st_size // 1024} kB")


@contextmanager
def visit(browser: Any, address: str, *, dark: bool = False) -> Iterator[Any]:
    context = browser.new_context(
        viewport={"width": 1280, "height": 860}, device_scale_factor=1.5, color_scheme="dark" if dark else "light"
    )
    page = context.new_page()
    page.goto(address)
    page.locator(".sublayer").wait_for()
    yield page
    context.close()


@contextmanager
def served(path: Path) -> Iterator[str]:
    import uvicorn

    loaded = read(path)
    inspector = Inspector(loaded, describe(loaded, folder_name(path), held_out(path)), seconds=300)
    listening = bound("127.0.0.1", 0)
    running = uvicorn.Server(uvicorn.Config(application(inspector), log_level="warning", ws="none", lifespan="off"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield addresses(listening)[0]
    finally:
        running.should_exit = True
        thread.join()
        listening.close()


if __name__ == "__main__":
    main()
