"""`sublayer serve`: models behind HTTP, for anyone's client."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from sublayer.cli.arguments import Device, WeightFormat
from sublayer.cli.terminal import say
from sublayer.errors import ConfigError

PORT = 8643


def serve(
    models: Annotated[
        list[str],
        typer.Argument(help="Model folders, or NAME=FOLDER. The name en-es says the languages too.", metavar="MODEL…"),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = PORT,
    keys: Annotated[
        Path | None, typer.Option(help="File of API keys, one a line. Default: anyone may ask.", metavar="FILE")
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(help="Host name by which the server may be asked, besides localhost.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, max=4096, help="Sequences decoded together; each beam counts.")] = 32,
    cache_tokens: Annotated[
        int, typer.Option(min=64, max=2**24, help="Size of the key-value cache of a model, in tokens.")
    ] = 32_768,
    chunk: Annotated[int, typer.Option(min=1, max=65536, help="Prompt tokens read between two decoding steps.")] = 256,
    queue: Annotated[int, typer.Option(min=1, max=65536, help="Texts that may wait; more are answered 429.")] = 512,
    seconds: Annotated[float, typer.Option(min=1, help="Time limit for one request, in seconds.")] = 300.0,
    grace: Annotated[float, typer.Option(min=0, help="Time to finish running requests on SIGTERM, in seconds.")] = 30.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Log no line for each request.")] = False,
    weights: WeightFormat = None,
    device: Device = "auto",
) -> None:
    """Serve models over HTTP: OpenAI's API (completions, chat, embeddings), LibreTranslate's API, and /classify, /tag
    and /fill. Requests are decoded together (continuous batching). The page at / tries the models out.

    Stop it with Ctrl-C or SIGTERM: requests that run are finished, new ones are refused.

    Example: sublayer serve en-es=runs/demo

    Example: sublayer serve en-es=runs/en-es lm=models/my-llama --rows 64 --queue 1000
    """
    from importlib.util import find_spec

    for package in ("starlette", "uvicorn", "prometheus_client", "python_multipart", "langdetect"):
        if find_spec(package) is None:
            raise ConfigError(f"{package} is not installed", "pip install 'sublayer[serve]'.")

    from sublayer.cli.decoding import device_for
    from sublayer.inspection import listening as network
    from sublayer.serving import logs
    from sublayer.serving.app import application
    from sublayer.serving.keys import Keys
    from sublayer.serving.limits import BatchLimits, RequestLimits
    from sublayer.serving.metrics import Metrics
    from sublayer.serving.running import serve as run
    from sublayer.serving.running import uvicorn_server
    from sublayer.serving.served import Models, load_models, parse
    from sublayer.serving.server import Server

    named = parse(models)
    let_in = Keys() if keys is None else Keys.read(keys)
    with network.bound(host, port) as listening:
        limits = BatchLimits(rows=rows, cache_tokens=cache_tokens, chunk=chunk, waiting=queue)
        server = Server(Models(()), Metrics(), RequestLimits(seconds=seconds), let_in, loading=True)
        where = network.addresses(listening)
        if network.is_exposed(listening):
            who = "whoever has a key" if let_in.needed else "whoever can reach this machine's network address"
            say(
                f"sublayer: warning: {who} can use the models. Nothing is encrypted, so that texts and keys can be "
                "read on their way: put a proxy with TLS before it. Without --host, only this machine is let in.",
                err=True,
            )

        def get_models() -> None:
            server.models = load_models(named, server.metrics, limits, device_for(device, weights), weights)
            server.loading = False
            # Last: whoever starts it may wait for this line.
            say(f"{', '.join(server.models.by_name)}: {' or '.join(where)}")
            sys.stdout.flush()

        logs.to_standard_error(requests=not quiet)
        app = application(server, names=frozenset({host.lower(), *(each.lower() for each in name or ())}))
        run(uvicorn_server(app, server, grace), listening, get_models)
        if not server.close(1.0):
            # A model's thread still computes, and Python cannot end a thread that is inside of a product.
            say("sublayer: what still ran was given up", err=True)
            sys.stdout.flush()
            os._exit(1)
