"""What the pages say can be followed: links lead somewhere, commands and their options exist, recipes are recipes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from docs.pages import PAGES, ROOT, anchor, blocks, commands, links, prose
from sublayer.cli.main import app
from sublayer.config import Recipe
from sublayer.config.load import resolve, shipped_recipes

GROUP: Any = typer.main.get_command(app)

page = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


@page
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in links(page):
        path, _, heading = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if heading:
            headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), flags=re.MULTILINE)
            assert heading in map(anchor, headings), f"{page.name} links to {link}"


@page
def test_commands_and_their_options_exist(page: Path) -> None:
    for words in commands(page):
        command = GROUP
        while hasattr(command, "commands") and words and not words[0].startswith("-"):
            assert words[0] in command.commands, f"{page.name}: sublayer {' '.join(words)}"
            command, words = command.commands[words[0]], words[1:]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        for word in words:
            if word.startswith("--"):
                assert word in known, f"{page.name}: {command.name} has no {word}"


@page
def test_named_source_files_exist(page: Path) -> None:
    for name in re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.py)?)`", prose(page)):
        here = (ROOT / name, ROOT / "src" / "sublayer" / name, page.parent / name)
        assert any(path.exists() for path in here), f"{page.name} names {name}"


@page
def test_named_recipes_are_shipped(page: Path) -> None:
    for words in commands(page):
        if words[0] == "train" and len(words) > 1 and re.fullmatch(r"[a-z][a-z0-9-]+", words[1]):
            assert words[1] in shipped_recipes(), f"{page.name}: sublayer train {words[1]}"


@page
def test_whole_recipes_can_be_read(page: Path) -> None:
    for block in blocks(page, "toml"):
        data = tomllib.loads(block.text)
        if "name" in data:
            resolved, problems = resolve(data)
            assert not problems
            Recipe.parse(resolved, page.name)


def test_the_readme_names_every_command() -> None:
    named = {words[0] for words in commands(ROOT / "README.md")}
    assert named == set(GROUP.commands)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


def test_every_page_is_reached_from_the_readme() -> None:
    reached = {(ROOT / link.partition("#")[0]).resolve() for link in links(ROOT / "README.md")}
    assert not {page for page in PAGES if page.name != "README.md"} - reached
