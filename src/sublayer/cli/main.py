"""The command `sublayer`. Errors that a user can mend are one line on standard error, and exit code 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer

from sublayer.cli.process import run, told_to_torchrun
from sublayer.cli.terminal import log_to_terminal, one_line, say
from sublayer.errors import SublayerError
from sublayer.untrusted import first_line

COMMANDS = (
    "train", "translate", "generate", "chat", "classify", "tag", "embed", "fill", "evaluate", "attend", "inspect",
    "serve", "heads", "lens", "describe", "plan", "check", "compare", "schema", "pull", "merge", "export",
    "shortlist",
)  # fmt: skip
"""Each stands in a file of its name, as a function of its name."""


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        say(f"sublayer {version('sublayer')}")
        raise typer.Exit


def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """The Transformer, whole: train it on your own text, take anybody's checkpoint, use it, look inside."""


def app_of(arguments: Sequence[str] = ()) -> typer.Typer:
    """The application. Of a command that is asked for by the first of the arguments only that one is imported; of any
    other arguments, and of none, all are.
    """
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(options)
    asked = [name for name in COMMANDS if name == next(iter(arguments), None)]
    if not asked:
        app.add_typer(import_module("sublayer.cli.data").app, name="data")
    for name in asked or COMMANDS:
        app.command()(getattr(import_module(f"sublayer.cli.{name}"), name))
    return app


def __getattr__(name: str) -> Any:
    if name == "app":
        return app_of()
    raise AttributeError(f"module 'sublayer.cli.main' has no attribute '{name}'")


def main() -> None:
    """Run the command line; end with a line on standard error and a code other than 0 where something went wrong.

    2: what the user can mend. 1: a fault of sublayer's; `SUBLAYER_TRACEBACK=1` shows where. 130, 141: interrupted, and
    nobody reads the output any more.
    """
    log_to_terminal()
    try:
        with told_to_torchrun():
            run(app_of(sys.argv[1:]))
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
    # Of several processes the first speaks; what went wrong in another stands in torchrun's report.
    if os.environ.get("RANK", "0") == "0" or "TORCHELASTIC_ERROR_FILE" not in os.environ:
        say(f"sublayer: {one_line(what)}", err=True)
    sys.exit(code)
