"""A small server before CTranslate2 or llama.cpp, for `serving.py`: how their users put them behind HTTP.

    one      CTranslate2, one text after another, as LibreTranslate's own server does
    queue    CTranslate2 with a simple queue: what waits is translated as one batch, and what comes meanwhile waits
    llama    llama.cpp's own server, with as many slots

Prints its address. Texts are cut into tokens by the model's own tokenizer, as on the other side.
"""

from __future__ import annotations

import argparse
import queue
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

Ids = list[int]


class OneByOne:
    """A lock before the model."""

    def __init__(self, translate: Any) -> None:
        self._translate, self._lock = translate, threading.Lock()

    def ask(self, ids: Ids) -> Ids:
        with self._lock:
            return self._translate([ids])[0]


class Queued:
    """A thread that takes whatever waits, up to `most`."""

    def __init__(self, translate: Any, most: int) -> None:
        self._translate, self._most = translate, most
        self._waiting: queue.Queue[tuple[Ids, Future[Ids]]] = queue.Queue()
        threading.Thread(target=self._run, daemon=True).start()

    def ask(self, ids: Ids) -> Ids:
        answer: Future[Ids] = Future()
        self._waiting.put((ids, answer))
        return answer.result()

    def _run(self) -> None:
        while True:
            several = [self._waiting.get()]
            while len(several) < self._most and not self._waiting.empty():
                several.append(self._waiting.get())
            for (_, answer), found in zip(several, self._translate([ids for ids, _ in several]), strict=True):
                answer.set_result(found)


def ctranslate2_application(options: argparse.Namespace) -> Any:
    import ctranslate2
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from sublayer.text import Tokenizer

    tokenizer = Tokenizer.load(options.tokenizer)
    end = tokenizer.end_id
    model: Any = ctranslate2.Translator(
        str(options.folder), compute_type=options.weights, intra_threads=options.threads
    )

    def translate(several: list[Ids]) -> list[Ids]:
        found = model.translate_batch(
            [list(map(str, ids)) for ids in several],
            beam_size=options.beam,
            max_decoding_length=64,
            max_batch_size=options.most,
        )
        return [[int(token) for token in one.hypotheses[0]] for one in found]

    model_of = OneByOne(translate) if options.way == "one" else Queued(translate, options.most)

    def answer(text: str) -> str:
        [ids] = tokenizer.encode([text])
        return tokenizer.decode([model_of.ask([*ids, end])])[0]

    async def endpoint(request: Request) -> JSONResponse:
        body = await request.json()
        return JSONResponse({"translatedText": await run_in_threadpool(answer, body["q"])})

    return Starlette(routes=[Route("/translate", endpoint, methods=["POST"])])


def serve_ctranslate2(options: argparse.Namespace) -> None:
    import uvicorn
    from anyio import to_thread

    app = ctranslate2_application(options)
    listening = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            # So that a thread is there for everyone who waits.
            to_thread.current_default_thread_limiter().total_tokens = 1000
            await super().startup(sockets)

    Server(uvicorn.Config(app, log_level="error", access_log=False, lifespan="off")).run(sockets=[listening])


def serve_llama(options: argparse.Namespace) -> None:
    import xllamacpp

    made = xllamacpp.CommonParams()
    made.model.path = str(options.folder)
    made.n_parallel = options.most
    made.n_ctx = options.most * 512
    made.cpuparams.n_threads = made.cpuparams_batch.n_threads = options.threads
    made.ui = False
    made.verbosity = 1
    made.port = 0
    server = xllamacpp.Server(made)
    print(server.listening_address, flush=True)
    threading.Event().wait()


def start() -> argparse.Namespace:
    """What is served, and how."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=["one", "queue", "llama"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--weights", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--beam", type=int, default=1)
    parser.add_argument("--most", type=int, default=32)
    return parser.parse_args()


def serve(start: Callable[[], argparse.Namespace]) -> None:
    """Serve until the process is ended."""
    options = start()
    if options.way == "llama":
        serve_llama(options)
    else:
        serve_ctranslate2(options)


if __name__ == "__main__":
    serve(start)
