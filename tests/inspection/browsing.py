"""A real browser for tests of the page: one for a module of tests, the system's chromium, driven by Playwright.

Without it these tests are skipped where somebody works, with the reason, and fail where CI runs.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sublayer.inspection.inspector import Inspector
from sublayer.inspection.listening import addresses, bound
from sublayer.inspection.loaded_model import LoadedModel, describe
from sublayer.inspection.server import application

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def missing() -> str:
    """What there is to be installed; empty where nothing is."""
    try:
        import playwright  # noqa: F401
    except ModuleNotFoundError:
        return "playwright is not installed: pip install 'sublayer[test]'"
    return "" if shutil.which(CHROMIUM) else f"{CHROMIUM} is not there: apt-get install chromium"


def require_browser() -> None:
    reason = missing()
    if reason and os.environ.get("CI"):
        pytest.fail(f"the page cannot be tested: {reason}")
    if reason:
        pytest.skip(reason)


@contextmanager
def launched() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


@contextmanager
def served(loaded: LoadedModel, *, text: str = "", seconds: float = 60.0) -> Iterator[str]:
    """The address of a server with this model behind it, as `sublayer inspect` makes one."""
    import uvicorn

    listening = bound("127.0.0.1", 0)
    app = application(Inspector(loaded, describe(loaded, "small"), seconds), text=text)
    # Here a test ends the server, where on the command line a signal does.
    running = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, ws="none", lifespan="off"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield addresses(listening)[0]
    finally:
        running.should_exit = True
        thread.join()
        listening.close()


class Visit:
    """A tab, in a browser's profile of its own; whatever its console complains of is kept."""

    def __init__(self, browser: Any, *, width: int = 1400, dark: bool = False) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 1000}, color_scheme="dark" if dark else "light"
        )
        self.context.set_default_timeout(10_000)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page = self.tab()

    def tab(self) -> Any:
        page = self.context.new_page()
        page.on("console", lambda one: self.complaints.append(one.text) if one.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        return page

    def open(self, address: str) -> Any:
        self.page.goto(address)
        self.page.locator(".sublayer").wait_for()
        return self.page

    def read(self, text: str) -> None:
        """Type a text, and wait for what the model makes of it."""
        page = self.page
        page.get_by_label("Text", exact=True).fill(text)
        page.keyboard.press("Enter")
        self.settled()
        page.get_by_label("Text", exact=True).blur()

    def settled(self) -> None:
        self.page.wait_for_function(
            "() => !['loading', 'empty'].includes(document.querySelector('.sublayer')?.dataset.status ?? 'loading')"
        )

    def texts(self, selector: str) -> list[str]:
        # Not inner texts: words of a drawing have none.
        return self.page.locator(selector).all_text_contents()
