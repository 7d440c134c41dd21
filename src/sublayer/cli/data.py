"""`sublayer data`: the corpora that sublayer knows, and how to get them."""

from __future__ import annotations

from typing import Annotated

import typer

from sublayer.cli import terminal
from sublayer.cli.progress import reported
from sublayer.cli.terminal import say

app = typer.Typer(help="Corpora by name: list them, fetch them.", no_args_is_help=True)


@app.command("list")
def list_corpora() -> None:
    """List the corpora that can be named in a recipe.

    Example: sublayer data list
    """
    from rich.table import Table

    from sublayer.data import corpora

    table = Table("name", "kind", "languages", "rows", "licence", "fetched")
    for corpus in corpora.CORPORA:
        fetched = "yes" if corpora.is_fetched(corpus) else "no"
        table.add_row(corpus.name, corpus.kind, corpus.languages, f"{corpus.pairs:,}", corpus.licence, fetched)
    terminal.console().print(table)


@app.command("fetch")
def fetch_corpus(
    name: Annotated[str, typer.Argument(help="A name from `sublayer data list`.", metavar="NAME")],
) -> None:
    """Fetch a corpus into the cache folder, unless it is there, and say where it is and under which licence.

    The folder is $SUBLAYER_CACHE, or else $XDG_CACHE_HOME/sublayer, or else ~/.cache/sublayer.

    Example: sublayer data fetch tatoeba-en-es
    """
    from sublayer.data import corpora

    corpus = corpora.find(name)
    path = reported(f"fetching {name}", lambda progress: corpora.fetch(name, progress))
    say(f"{path}\nLicence: {corpus.licence}, {corpus.licence_url}\nAttribution: {corpus.attribution}")
    say(corpus.note)
