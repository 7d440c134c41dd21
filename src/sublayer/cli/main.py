"""The command `sublayer`. Errors that a user can mend are one line on standard error, and exit code 2."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

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
from sublayer.cli.serve import serve
from sublayer.cli.tag import tag
from sublayer.cli.terminal import log_to_terminal, one_line, say
from sublayer.cli.train import train
from sublayer.cli.translate import translate
from sublayer.errors import SublayerError
from sublayer.untrusted import first_line

app = typer.Typer(
    help="The Transformer, whole: train it on your own text, take anybody's checkpoint, use it, look inside.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(data, name="data")
COMMANDS = (
    train, translate, generate, chat, classify, tag, embed, fill, evaluate, attend, inspect, serve, heads, lens, describe,
    check, compare, schema, pull, merge, export,
)  # fmt: skip


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        say(f"sublayer {version('sublayer')}")
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
    """Run the command line; end with a line on standard error and a code other than 0 where something went wrong.

    2: what the user can mend. 1: a fault of sublayer's; `SUBLAYER_TRACEBACK=1` shows where. 130, 141: interrupted, and
    nobody reads the output any more.
    """
    log_to_terminal()
    try:
        run(app)
    except SublayerError as error:
        _end(str(error), 2)
    except KeyboardInterrupt:
        _end("interrupted", 130)
    except BrokenPipeError:
        # The reader of our output has gone (as `head` does); nothing is wrong, and Python must not complain at exit.
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        where = "" if error.filename is None else f": {str(error.filename)[:200]}"
        _end(f"{error.strerror or error}{where}", 2)
    except MemoryError:
        _end("there is not enough memory. Take a smaller model, shorter texts or smaller batches.", 2)
    except SystemExit:
        raise
    except BaseException as error:  # PanicException, of libraries in Rust, is no Exception
        if os.environ.get("SUBLAYER_TRACEBACK"):
            raise
        what = f"{type(error).__name__}: {first_line(error)}"
        _end(
            f"this is a fault in sublayer ({what}). Please report it where you got sublayer from, with the command;"
            " SUBLAYER_TRACEBACK=1 before it shows where it happened.",
            1,
        )


def _end(what: str, code: int) -> NoReturn:
    say(f"sublayer: {one_line(what)}", err=True)
    sys.exit(code)
