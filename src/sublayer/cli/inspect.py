"""`sublayer inspect`: a page on this machine that shows what a model does with what one types."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from sublayer.cli.arguments import Device, ModelFolder
from sublayer.cli.inspecting import opened
from sublayer.cli.terminal import say
from sublayer.errors import ConfigError

PORT = 8642


def inspect(
    model: ModelFolder,
    text: Annotated[str, typer.Argument(help="Initial text of the page.", metavar="TEXT", show_default=False)] = "",
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. There is no password: anyone who can reach the address can use the page."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Port to listen on; 0 picks a free one.",
            show_default=f"{PORT}, or the next free one",
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Time limit for one request, in seconds.")] = 60.0,
    browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    device: Device = "auto",
) -> None:
    """Serve a local web page to look into a model: the attention of every layer and head, candidates for each token,
    the logit lens, and the output with heads switched off.

    Works for translation models, language models and encoders. Stop it with Ctrl-C.

    Example: sublayer inspect runs/en-es

    Example: sublayer inspect models/my-llama "The capital of France is" --seconds 300
    """
    from importlib.util import find_spec

    from sublayer.inspection import listening as network
    from sublayer.inspection.inspector import Inspector
    from sublayer.inspection.loaded_model import describe, folder_name, held_out
    from sublayer.inspection.server import application

    for package in ("starlette", "uvicorn"):
        if find_spec(package) is None:
            raise ConfigError(f"{package} is not installed", "pip install 'sublayer[inspect]'.")
    # Before the model is loaded: a port that is taken should not cost that time.
    listening = network.bound(host, PORT, tries=20) if port is None else network.bound(host, port)
    with listening:
        loaded = opened(model, device)
        about = describe(loaded, folder_name(model), held_out(model))
        inspector = Inspector(loaded, about, seconds)
        app = application(inspector, text=text, names=frozenset({host.lower()}))
        where = network.addresses(listening)
        say(f"{about.name}: {' or '.join(where)}")
        if network.is_exposed(listening):
            say(
                "sublayer: warning: whoever can reach this machine's network address can use the model and look into "
                "it. There is no password, and nothing is encrypted. Without --host, only this machine is let in.",
                err=True,
            )
        if browser:
            import webbrowser

            webbrowser.open(where[0])
        try:
            network.serve(app, listening)
        finally:
            if not inspector.close():
                # The model's thread still computes, and Python cannot end a thread that is inside of a product.
                say("sublayer: interrupted", err=True)
                sys.stdout.flush()
                os._exit(130)
