"""`sublayer data`: the corpora that sublayer knows, how to get them, and how text is checked and prepared."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sublayer.cli import terminal
from sublayer.cli.arguments import Overrides, RecipeName
from sublayer.cli.progress import reported
from sublayer.cli.terminal import say
from sublayer.errors import InputError

if TYPE_CHECKING:
    from sublayer.config import Filter
    from sublayer.data.tables.table import Table

app = typer.Typer(
    help="List and download the named corpora; check text for damaged rows; prepare large text.", no_args_is_help=True
)


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


@app.command("check")
def check_text(
    what: Annotated[
        list[str],
        typer.Argument(
            help="A recipe; or two files whose lines belong together; or one .tsv, .jsonl or plain text file.",
            metavar="RECIPE | FILE [FILE]",
        ),
    ],
    overrides: Overrides = None,
    examples: Annotated[int, typer.Option(help="Examples to show of each fault.", min=0, max=1000)] = 3,
) -> None:
    """Count the rows of a text that are probably damaged, and show some.

    Counted are duplicates, equal sides, sides of very different length, another script than most rows', control and
    zero-width characters, markup, and mojibake, as well as what [data.filter] of a recipe asks for. A row can be
    counted more than once. Training leaves out only what [data.filter] says.

    Example: sublayer data check tatoeba-en-es-demo
    """
    from rich.table import Table as Printed

    from sublayer.data.filters import checks

    table, settings = _text_of(what, overrides or [])
    rows = table.rows_of_text()
    printed = Printed("rows", "fault", "line", "example")
    for fault, find in checks(settings).items():
        found = list(find(rows))
        shown = found[:examples]
        lines = table.lines_of(shown) or [row + 1 for row in shown]
        samples = [(f"{line:,}", " | ".join(map(_visible, rows[row]))) for line, row in zip(lines, shown, strict=True)]
        for number, sample in enumerate(samples or [("", "")]):
            printed.add_row(*(("", "") if number else (f"{len(found):,}", fault)), *sample)
        printed.add_section()
    terminal.console().print(printed)
    say(f"{table.report}")
    say("To leave faulty rows out of training, turn checks on in [data.filter] of the recipe (docs/own-text.md).")


@app.command("prepare")
def prepare_text(
    recipe: RecipeName,
    out: Annotated[Path, typer.Argument(help="Folder for the prepared text.", metavar="OUT")],
    workers: Annotated[int, typer.Option(help="Processes that read and tokenize.", min=1, max=1024)] = 1,
    overrides: Overrides = None,
) -> None:
    """Tokenize the text of a recipe into memory-mapped shards, for a corpus that is larger than memory.

    Filters, split and tokenizer are those of the recipe; `sublayer train RECIPE --set data.shards=OUT` trains on the
    result. The bytes do not depend on the number of workers. Started again after it was interrupted, it goes on.

    Example: sublayer data prepare tatoeba-en-es-demo prepared --workers 2
    """
    import shlex

    from sublayer.config.load import load_recipe
    from sublayer.training.preparing import prepare_shards

    loaded = load_recipe(recipe, overrides or [])
    index, read = prepare_shards(loaded, out, workers, partial(reported, unit="portions"))
    report = index.report.report
    for name, said in (("text", read), ("training", str(report))):
        if report.dropped or report.noted or index.long:
            say(f"{name}: {said}")
    if index.long is not None:
        say(f"left out besides: {index.long.dropped}")
    rows, ids, size = (sum(getattr(each, what) for each in index.shards) for what in ("rows", "ids", "bytes"))
    say(f"{rows:,} {report.noun}, {ids:,} tokens, {size / 1e6:,.1f} MB in {len(index.shards):,} shards: {out}")
    again = [word for override in [*(overrides or []), f"data.shards={out.resolve()}"] for word in ("--set", override)]
    say(f"Train on it: {shlex.join(['sublayer', 'train', recipe, *again])}")


def _text_of(what: list[str], overrides: list[str]) -> tuple[Table[Any], Filter]:
    """The text that the command line names, and the checks to make."""
    from sublayer import config
    from sublayer.config.load import load_recipe
    from sublayer.data import sources
    from sublayer.data.tables.documents import DOCUMENTS
    from sublayer.tasks import task_of

    if len(what) > 2:
        raise InputError(f"{len(what)} files are given", "Give a recipe, one file, or two files of parallel lines.")
    kinds = {".tsv": config.Tsv(path=what[0]), ".jsonl": config.Jsonl(path=what[0])}
    if len(what) == 2:
        return sources.read(config.LineAligned(source=what[0], target=what[1]), Path()), config.SUSPICIOUS
    suffix = Path(what[0]).suffix
    if suffix in kinds:
        return sources.read(kinds[suffix], Path()), config.SUSPICIOUS
    if suffix != ".toml" and Path(what[0]).is_file():
        return DOCUMENTS.read(config.PlainText(path=what[0]), Path()), config.SUSPICIOUS
    loaded = load_recipe(what[0], overrides)
    asked = loaded.recipe.data.filter.model_dump(exclude_defaults=True)
    settings = config.SUSPICIOUS.model_copy(update=asked)
    return task_of(loaded.recipe.task).read(loaded.recipe.data.source, loaded.folder), settings


def _visible(text: str, most: int = 60) -> str:
    """The beginning of a text, with what cannot be seen spelled out."""
    from sublayer.data.filters import CONTROL

    shown = CONTROL.sub(lambda one: f"\\u{ord(one[0]):04x}", text[: most + 1])
    return shown if len(text) <= most else f"{shown[:most]}…"
