"""`sublayer data`: the corpora that sublayer knows, and how to get them."""

from __future__ import annotations

from typing import Annotated

import typer

from sublayer.cli import terminal
from sublayer.cli.progress import reported
from sublayer.cli.terminal import say

app = typer.Typer(help="List and download the named corpora.", no_args_is_help=True)


@app.command("list")
def list_corpora() -> None:
    """List the corpora that a recipe can name.

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
    name: Annotated[str, typer.Argument(help="Name of the corpus, as `sublayer data list` shows it.", metavar="NAME")],
) -> None:
    """Download a corpus into the cache unless it is there already, and print its path and licence.

    The cache is $SUBLAYER_CACHE, else $XDG_CACHE_HOME/sublayer, else ~/.cache/sublayer.

    Example: sublayer data fetch tatoeba-en-es
    """
    from sublayer.data import corpora

    corpus = corpora.find(name)
    path = reported(f"fetching {name}", lambda progress: corpora.fetch(name, progress))
    say(f"{path}\nLicence: {corpus.licence}, {corpus.licence_url}\nAttribution: {corpus.attribution}")
    say(corpus.note)
