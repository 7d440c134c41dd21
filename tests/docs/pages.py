"""The Markdown pages of the project, cut into what a test can try: links, commands, and blocks of code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True)
class Code:
    """A fenced block. section: the heading of the second level above it, as a link writes it."""

    language: str
    text: str
    section: str


def blocks(page: Path, language: str) -> list[Code]:
    """Return the fenced blocks of a page in one language."""
    return [block for block in _blocks(page.read_text("utf-8")) if block.language == language]


def _blocks(text: str) -> Iterator[Code]:
    section = ""
    for found in re.finditer(r"^## ([^\n]+)$|^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        if found[1] is not None:
            section = anchor(found[1])
        else:
            yield Code(found[2], found[3], section)


def anchor(heading: str) -> str:
    """Return how a link names a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[str]:
    """Return the targets of links and pictures that do not lead to the web."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def commands(page: Path) -> list[list[str]]:
    """Return the words after `sublayer` wherever a page shows the command: after a prompt, and between backticks."""
    lines = [line for block in blocks(page, "console") for line in block.text.splitlines() if line.startswith("$ ")]
    shown = [part for line in lines for part in line.removeprefix("$ ").split(" && ")]
    # A span of code may be broken over two lines.
    shown += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]
    found = [re.match(r"(?:\.venv/bin/)?sublayer ([a-z-].*)", one) for one in shown]
    return [shlex.split(one[1], comments=True) for one in found if one is not None]
