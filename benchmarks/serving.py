"""Requests a second at a fixed latency: `sublayer serve` beside what people put behind HTTP today, the same weights.

    pip install 'sublayer[serve,bench]'
    python benchmarks/serving.py
    python benchmarks/serving.py --parts translation --beams 4 --weights int8 --seconds 20

Translation: real held-out sentences, each a request, greedy and beam 4; a model in Marian's architecture, trained for
it once. Beside it stand CTranslate2 as LibreTranslate's server has it, one text after another, and CTranslate2 with a
simple queue, which batches what waits. Language models: prompts of WikiText-2 of 16 to 96 tokens and 32 tokens to go
on, by SmolLM2-135M; beside it llama.cpp's own server with as many slots.

Arrivals are open-loop (`serving_load.py`). Reported is the highest rate at which the 95th percentile of the latency
stays within the limit. The load comes from this process, on the same machine.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import corpus
import language_models
import machine
import options as options_of
import translation_models
from engine_contenders import CTRANSLATE2, LLAMA_CPP, OURS, installed
from gguf_models import gguf_file
from sentence_model import trained
from serving_load import Body, Trial, highest, trial
from summary import table, write
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordLevel

import sublayer
from sublayer.data.sources import grouped
from sublayer.generation.translator import Translator
from sublayer.hub.folder import ModelBundle, ModelCard
from sublayer.hub.folder import write as write_folder
from sublayer.hub.importing import import_folder
from sublayer.text import Tokenizer
from sublayer.text.folder import load_folder
from sublayer.text.specials import Specials

HERE = Path(__file__).parent
SEED = 1
GGUF = {"float32": "F32", "int8": "Q8_0", "int4": "Q4_0"}
ONE, QUEUE = f"{CTRANSLATE2}, one after another", f"{CTRANSLATE2}, a queue"


def main() -> None:
    options = _options()
    print(f"{machine.described(machine.facts())}\n")
    there = installed()
    rows: list[dict[str, Any]] = []
    for part in options.parts:
        for row in {"translation": _translation, "language": _language}[part](options, there):
            rows.append(row)
            # After each line: the whole takes long.
            write(options, {"installed": there, "rows": rows})
    print("\n" + _table(rows))
    print(f"\nWritten to {write(options, {'installed': there, 'rows': rows})}")


# --- what is measured ----------------------------------------------------------------------------------------------


def _translation(options: argparse.Namespace, there: Mapping[str, str | None]) -> Iterator[dict[str, Any]]:
    data = corpus.example() if options.quick else corpus.load()
    folder = trained(data, options.shape, options.train_steps, "cpu")
    translator = sublayer.load(folder)
    assert isinstance(translator, Translator)
    forms = translation_models.forms_of(folder.name, translator.model)  # type: ignore[arg-type]
    sentences = [sentence for sentence in grouped(data.splits.test)[0] if sentence.strip()]
    random.Random(SEED).shuffle(sentences)
    bodies: list[Body] = [{"q": sentence, "source": "en", "target": "es"} for sentence in sentences]
    for beam in options.beams:
        rates: dict[str, Any] = {}
        served = _with_decoding(folder, beam)
        commands = {OURS: _ours(options, f"en-es={served}")}
        if there[CTRANSLATE2]:
            for name, way in ((ONE, "one"), (QUEUE, "queue")):
                form = forms / f"ctranslate2-{options.weights}"
                commands[name] = _rival(options, way, form, tokenizer=folder / "tokenizer.json", beam=beam)
        for name, command in commands.items():
            rates[name] = _measured(options, name, command, "/translate", bodies, options.limit)
        yield {"title": f"translation, {'greedy' if beam == 1 else f'beam {beam}'}, {options.weights}", "rates": rates}


def _language(options: argparse.Namespace, there: Mapping[str, str | None]) -> Iterator[dict[str, Any]]:
    foreign = language_models.folder_of(options.model)
    draw = random.Random(SEED)
    lengths = [draw.randint(16, 96) for _ in range(64)]
    prompts = language_models.prompts(options.model, foreign, 256, lengths)
    bodies: list[Body] = [
        {"model": "lm", "prompt": ids, "max_tokens": options.new, "temperature": 0} for ids in prompts
    ]
    commands = {OURS: _ours(options, f"lm={_own(foreign)}")}
    if there[LLAMA_CPP]:
        file = gguf_file(foreign, GGUF[options.weights])
        commands[LLAMA_CPP] = _rival(options, "llama", file)
    rates = {
        name: _measured(options, name, command, "/v1/completions", bodies, options.language_limit)
        for name, command in commands.items()
    }
    yield {"title": f"{options.model}, {options.new} tokens, {options.weights}", "rates": rates}


def _measured(
    options: argparse.Namespace, name: str, command: list[str], path: str, bodies: list[Body], limit: float
) -> dict[str, Any]:
    with _server(command, options.threads) as address:
        trial(address, path, bodies[:8], 4.0, 2.0)  # what is made at the first request is made

        def run(rate: float) -> Trial:
            found = trial(address, path, bodies, rate, options.seconds)
            print(f"{name}: {rate:.2f} a second, p95 {found.p95:.3f} s, {found.failed} failed", flush=True)
            return found

        best, trials = highest(run, options.rate, limit, refine=options.refine, most=options.trials)
    return {
        "best": None if best is None else asdict(best),
        "trials": [asdict(one) for one in trials],
        "limit": limit,
    }


# --- the servers ---------------------------------------------------------------------------------------------------


def _ours(options: argparse.Namespace, model: str) -> list[str]:
    code = "from sublayer.cli.main import main; main()"
    return [
        *(sys.executable, "-c", code, "serve", model, "--port", "0", "--quiet", "--weights", options.weights),
        *("--rows", str(options.rows), "--queue", "4096"),
    ]


def _rival(
    options: argparse.Namespace, way: str, folder: Path, *, tokenizer: Path | None = None, beam: int = 1
) -> list[str]:
    most = options.rows if way == "llama" else max(1, options.rows // beam)
    return [
        *(sys.executable, str(HERE / "serving_rivals.py"), way, str(folder), "--threads", str(options.threads)),
        *("--beam", str(beam), "--most", str(most), "--weights", options.weights),
        *(() if tokenizer is None else ("--tokenizer", str(tokenizer))),
    ]


@contextmanager
def _server(command: list[str], threads: int) -> Iterator[str]:
    """A server in a process of its own: its address."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if "http://" not in line:
            raise RuntimeError(f"{' '.join(command)} ended with code {process.wait()}")
        address = "http://" + line.split("http://")[1].split()[0].rstrip("/")
        yield address
    finally:
        process.kill()
        process.wait()


def _with_decoding(folder: Path, beam: int) -> Path:
    """The model's folder, with so many beams as its own."""
    path = folder.with_name(f"{folder.name}-beam{beam}")
    if not (path / "config.json").is_file():
        own = sublayer.load(folder)
        assert isinstance(own, Translator)
        decoding = {**own.decoding.plain(), "beam": beam, "max_tokens": 64}
        write_folder(path, ModelBundle(own.model, own.tokenizer, decoding), ModelCard("", "A model for benchmarks.\n"))
    return path


def _own(foreign: Path) -> Path:
    """A folder of `transformers`' as one of ours."""
    path = foreign.with_name(f"{foreign.name}-sublayer")
    if not (path / "config.json").is_file():
        imported = import_folder(foreign)
        there = (foreign / "tokenizer.json").is_file()
        tokenizer = load_folder(foreign) if there else _stand_in(imported.model.config.vocab_size)
        bundle = ModelBundle(imported.model, tokenizer, {})
        write_folder(path, bundle, ModelCard("", "A model for benchmarks.\n"))
    return path


def _stand_in(size: int) -> Tokenizer:
    """A tokenizer for random weights: token 17 is the text "17", and the last one ends a text."""
    backend = Backend(WordLevel({str(number): number for number in range(size)}, unk_token="0"))
    return Tokenizer(backend, Specials(end=size - 1))


# --- what is shown -------------------------------------------------------------------------------------------------


def _table(rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row["rates"]))

    def cell(row: dict[str, Any], name: str) -> str:
        found = row["rates"].get(name)
        if found is None:
            return "–"
        best = found["best"]
        return "none" if best is None else f"{best['rate']:.1f} (p95 {best['p95']:.2f} s)"

    header = ["requests a second", "p95 within", *names]
    return table(
        header,
        [
            [row["title"], f"{next(iter(row['rates'].values()))['limit']:g} s", *(cell(row, name) for name in names)]
            for row in rows
        ],
    )


def _options() -> argparse.Namespace:
    parser = options_of.parser(__doc__, name="serving")
    parser.add_argument("--parts", nargs="+", default=["translation", "language"], choices=["translation", "language"])
    parser.add_argument("--shape", default="small", help="preset of the translator")
    parser.add_argument("--train-steps", type=int, default=600, help="of the translator")
    parser.add_argument("--model", default="smollm2", choices=[*language_models.PRESETS, *language_models.PULLED])
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--weights", default="float32", choices=["float32", "int8"])
    parser.add_argument("--new", type=int, default=32, help="tokens that a language model goes on for")
    parser.add_argument("--rows", type=int, default=32, help="rows of a batch, texts of a queue's batch, slots")
    parser.add_argument("--threads", type=int, default=machine.cores(), help="of each server")
    parser.add_argument("--seconds", type=float, default=20.0, help="of arrivals at each rate")
    parser.add_argument("--rate", type=float, default=8.0, help="to begin with")
    parser.add_argument("--trials", type=int, default=8, help="at most, before what is left is halved")
    parser.add_argument("--refine", type=int, default=3, help="how often to halve what is left between two rates")
    parser.add_argument("--limit", type=float, default=1.0, help="95th percentile of a translation, in seconds")
    parser.add_argument("--language-limit", type=float, default=10.0, help="and of a language model's text")
    quick = {
        "shape": "tiny",
        "train_steps": 2,
        "model": "mini-lm",
        "beams": [2],
        "new": 4,
        "seconds": 1.0,
        "rate": 20.0,
        "trials": 1,
        "threads": 1,
        "refine": 0,
        "limit": 30.0,
        "language_limit": 30.0,
    }
    return options_of.read(parser, quick=quick)


if __name__ == "__main__":
    main()
