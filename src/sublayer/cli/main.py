"""The command `sublayer`. Errors that a user can mend are one line on standard error, and exit code 2."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sublayer.cli.attend import attend
from sublayer.cli.chat import chat
from sublayer.cli.check import check
from sublayer.cli.classify import classify
from sublayer.cli.compare import compare
from sublayer.cli.data import app as data
from sublayer.cli.describe import describe
from sublayer.cli.embed import embed
from sublayer.cli.evaluate import evaluate
from sublayer.cli.export import export
from sublayer.cli.fill import fill
from sublayer.cli.generate import generate
from sublayer.cli.heads import heads
from sublayer.cli.inspect import inspect
from sublayer.cli.lens import lens
from sublayer.cli.merge import merge
from sublayer.cli.process import run
from sublayer.cli.pull import pull
from sublayer.cli.schema import schema
from sublayer.cli.tag import tag
from sublayer.cli.train import train
from sublayer.cli.translate import translate
from sublayer.errors import SublayerError

app = typer.Typer(
    help="The Transformer, whole: train it on your own text, take anybody's checkpoint, use it, look inside.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(data, name="data")
COMMANDS = (
    train,
    translate,
    generate,
    chat,
    classify,
    tag,
    embed,
    fill,
    evaluate,
    attend,
    inspect,
    heads,
    lens,
    describe,
    check,
    compare,
    schema,
    pull,
    merge,
    export,
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"sublayer {version('sublayer')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """The Transformer, whole: train it on your own text, take anybody's checkpoint, use it, look inside."""


for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """Run the command line."""
    try:
        run(app)
    except SublayerError as error:
        typer.echo(f"sublayer: {' '.join(str(error).split())}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("sublayer: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone (as `head` does); nothing is wrong, and Python must not complain at exit.
        sys.stderr.close()
        sys.exit(141)
