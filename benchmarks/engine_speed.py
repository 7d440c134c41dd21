"""Decoding speed against what people use today: CTranslate2, llama.cpp and `transformers`, with the same weights.

    pip install 'sublayer[bench]'                              # CTranslate2, and llama.cpp as xllamacpp
    python benchmarks/engine_speed.py                          # each contender with its best number of threads
    python benchmarks/engine_speed.py --each-threads           # all with one thread, and all with every other number
    python benchmarks/engine_speed.py --parts language --models smollm2 --batches 1

Translation: models in Marian's architecture, greedy search and beam 4; 24 new tokens for every sentence, by weights
from which no search ends; and real held-out sentences, by a model that is trained for it once. Language models: a Llama
of 15 million parameters, GPT-2 small, SmolLM2-135M, and the shape of Qwen2.5-0.5B: 24 new tokens after prompts of 8,
and the time to the first token after a prompt of 512.

Tokens a second of a translation include reading the sentence; of a language model they are those after the first one:
what 24 tokens take less what one takes. Beside each line stands the floor, as tokens a second: what would be reached if
a step only read its weights, as fast as this machine reads memory; and what share of it each contender reaches. Weights
that stay in the cache are read faster than that. Texts are compared with those of sublayer in float32: how many tokens
are equal up to the first that is not. Where a contender in float32 says something else, scores tell a near tie from an
error.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from typing import Any

import corpus
import engine_report as report
import language_models
import machine
import options as options_of
import translation_models as models
from engine_contenders import CONTENDERS, CTRANSLATE2, EXACT, LLAMA_CPP, StepMatrix, installed
from gguf_models import gguf_file
from sentence_model import trained
from summary import Summary, write
from workers import REST, Message, Worker

import sublayer
from sublayer.data.sources import grouped
from sublayer.fast.machine import machine as facts_of_machine

HERE = Path(__file__).parent
LONG = 0.2
"""Seconds that a round should last for the fastest contender, if twenty times the same are enough for that."""
Ids = list[int]
Ask = Callable[[int], Message]
SEED = 1
TIE = {True: 1e-4, False: 1e-2}
"""Two translations are a near tie if their scores per token are so close. Two tokens of a language model are, if their
logits are, relative to the standard deviation of all."""


def main() -> None:
    options = _options()
    print(f"{machine.described(machine.facts())}\n")
    versions = installed()
    print("; ".join(f"{name} {told}" for name, told in versions.items() if told))
    left_out = {name: why for name in options.contenders if (why := CONTENDERS[name].missing)}
    for name, why in left_out.items():
        print(f"{name}: left out. {why}", flush=True)
    options.contenders = [name for name in options.contenders if name not in left_out]
    bandwidth = {
        "copy, one thread": facts_of_machine().bandwidth,
        **{f"read, {n} threads": report.read_bandwidth(n, options.megabytes) for n in options.threads},
    }
    print("; ".join(f"{name}: {speed / 1e9:.1f} GB/s" for name, speed in bandwidth.items()) + "\n", flush=True)
    rows: list[dict[str, Any]] = []
    found = {"installed": versions, "left_out": left_out, "bandwidth": bandwidth, "rows": rows}
    parts = {"translation": _translation, "language": _language}
    for measured in chain.from_iterable(parts[part](options) for part in options.parts):
        rows += measured
        # After each model: the whole takes long.
        write(options, found)
    print("\n" + report.tables(rows, max(bandwidth.values())))
    print(f"\nWritten to {write(options, found)}")


# --- what is measured ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A line: what is asked in each round, of a batch of so many, and the numbers of threads to choose from."""

    part: str
    shape: str
    title: str
    batch: int
    ask: Ask
    threads: list[int]


def _translation(options: argparse.Namespace) -> Iterator[list[dict[str, Any]]]:
    """The rows of one model after another."""
    for shape in options.translators:
        folder = models.forms_of(f"random-{shape}", models.random_translator(shape))
        cases = [
            _translated(options, shape, beam, batch, threads, models.random_sources(shape, 1000), fixed=True)
            for beam, batch, threads in _searches(options)
        ]
        yield _measured(options, folder, cases)
    for shape in options.held_out:
        data = corpus.example() if options.quick else corpus.load()
        path = trained(data, shape, options.train_steps, "cpu")
        translator = sublayer.load(path)
        sources = translator.encode(grouped(data.splits.test)[0])
        # A corpus may come in the order of its lengths.
        random.Random(SEED).shuffle(sources)
        cases = [
            _translated(options, shape, beam, batch, threads, sources, fixed=False)
            for beam, batch, threads in _searches(options)
        ]
        yield _measured(options, models.forms_of(path.name, translator.model), cases)


def _searches(options: argparse.Namespace) -> Iterator[tuple[int, int, list[int]]]:
    return product(options.beams, options.batches or (1, 8, 32), _threads(options))


def _translated(
    options: argparse.Namespace,
    shape: str,
    beam: int,
    batch: int,
    threads: list[int],
    sources: list[Ids],
    *,
    fixed: bool,
) -> Case:
    """fixed: all translations have as many tokens."""
    count = options.sentences or (max(8, batch) if fixed else 32 if batch == 1 else 4 * batch)
    steps = options.new if fixed else options.steps

    def ask(number: int) -> Message:
        picked = [sources[place % len(sources)] for place in range(number * count, (number + 1) * count)]
        return {"sources": picked, "batch": batch, "beam": beam, "steps": steps, "fixed": fixed}

    what = f"{options.new} tokens" if fixed else "held-out sentences"
    title = f"{shape}, {what}, {'greedy' if beam == 1 else f'beam {beam}'}, batch {batch}"
    return Case("translation", shape, title, batch, ask, threads)


def _language(options: argparse.Namespace) -> Iterator[list[dict[str, Any]]]:
    """The rows of one model after another."""
    for shape in options.models:
        folder = language_models.folder_of(shape)
        decoding = [(batch, options.prompt, options.new) for batch in options.batches or (1, 16)]
        cases = [
            _written(options, shape, folder, *what, threads)
            for what, threads in product(
                [*decoding, *([(1, options.first, 1)] if options.first else [])], _threads(options)
            )
        ]
        yield _measured(options, folder, cases)


def _written(
    options: argparse.Namespace, shape: str, folder: Path, batch: int, length: int, new: int, threads: list[int]
) -> Case:
    prompts = language_models.prompts(shape, folder, batch * (options.rounds + 1), [length])

    def ask(number: int) -> Message:
        return {"prompts": prompts[number * batch : (number + 1) * batch], "new": new}

    if new == 1:
        return Case("first token", shape, f"{shape}, prompt of {length}", batch, ask, threads)
    return Case("language", shape, f"{shape}, batch {batch}", batch, ask, threads)


def _threads(options: argparse.Namespace) -> list[list[int]]:
    """Numbers of threads to choose from, once; or each of them alone."""
    return [[number] for number in options.threads] if options.each_threads else [options.threads]


def _measured(options: argparse.Namespace, folder: Path, cases: list[Case]) -> list[dict[str, Any]]:
    """A row for each case. Contenders of one precision after those of another: not all models are in memory at once."""
    rows = [
        {
            "part": case.part,
            "shape": case.shape,
            "title": case.title,
            "batch": case.batch,
            "contenders": {},
            "refused": {},
        }
        for case in cases
    ]
    translates = cases[0].part == "translation"
    matrices = models.step_matrices(folder) if translates else report.step_matrices(folder)
    exact: list[list[Ids]] = [[] for _ in cases]
    for precision in dict.fromkeys(CONTENDERS[name].precision for name in options.contenders):
        names = [name for name in options.contenders if CONTENDERS[name].precision == precision]
        if translates:
            names = [name for name in names if CONTENDERS[name].library != LLAMA_CPP]
        with ExitStack() as stack:
            workers, refused = _workers(stack, names, folder, translates)
            for place, (case, row) in enumerate(zip(cases, rows, strict=True)):
                answers, chosen = _rounds(workers, case.ask, options.rounds, case.threads)
                found = _contenders(answers, chosen, matrices, case.batch)
                if EXACT in answers:
                    exact[place] = _texts(answers[EXACT])
                for name, given in answers.items():
                    if exact[place]:
                        found[name]["equal"] = _equal(exact[place], _texts(given))
                    if EXACT in workers:
                        gaps = _gaps(workers[EXACT], case.ask, answers[EXACT], given, translates)
                        ties = sum(abs(gap) < TIE[translates] for gap in gaps)
                        found[name]["equal"] |= {"score_gaps": gaps, "near_ties": ties}
                print(report.line(case.title, found), flush=True)
                row["contenders"].update(found)
                row["refused"].update(refused)
    return rows


def _workers(
    stack: ExitStack, names: list[str], folder: Path, translates: bool
) -> tuple[dict[str, Worker], dict[str, str]]:
    """A process for each contender; and of those that this machine or this model cannot have, why."""
    script = HERE / f"engine_{'translation' if translates else 'language'}_worker.py"
    workers: dict[str, Worker] = {}
    refused: dict[str, str] = {}
    for name in names:
        one = CONTENDERS[name]
        settings: Message = {"contender": name, "library": one.library, "weights": one.weights, "folder": str(folder)}
        if name == EXACT:
            # As the model is, so that it is all the same who steps.
            settings["weights"] = None
        if not translates and one.library == LLAMA_CPP:
            settings["file"] = str(gguf_file(folder, one.weights))
        if not translates and one.library == CTRANSLATE2:
            from ctranslate2_models import generator_folder

            generator_folder(folder, one.weights)
        worker = stack.enter_context(Worker(script, settings))
        if why := worker.started.get("refused"):
            refused[name] = why
            print(f"{name}: left out. {why}", flush=True)
        else:
            workers[name] = worker
    return workers, refused


def _rounds(
    workers: Mapping[str, Worker], ask: Ask, rounds: int, candidates: list[int]
) -> tuple[dict[str, list[Message]], dict[str, int]]:
    """Interleaved rounds, after each contender has found its best number of threads on a round of its own."""
    chosen: dict[str, int] = {}
    fastest = LONG
    for name, worker in workers.items():
        found: dict[int, float] = {}
        for number in candidates:
            # The first answer warms up.
            for _ in range(2):
                time.sleep(REST)
                found[number] = worker.ask(ask(rounds) | {"number_of_threads": number, "repeats": 1})["seconds"]
        chosen[name] = min(found, key=found.__getitem__)
        fastest = min(fastest, found[chosen[name]])
        # What is made for a number of threads is made before the rounds.
        worker.ask(ask(rounds) | {"number_of_threads": chosen[name], "repeats": 1})
    # As often for all, and long enough for the fastest.
    repeats = min(20, math.ceil(LONG / fastest))
    answers: dict[str, list[Message]] = {name: [] for name in workers}
    for number in range(rounds):
        for name, worker in workers.items():
            time.sleep(REST)
            given = ask(number) | {"number_of_threads": chosen[name], "repeats": repeats}
            answers[name].append(worker.ask(given))
    return answers, chosen


def _contenders(
    answers: dict[str, list[Message]], threads: dict[str, int], matrices: list[StepMatrix], batch: int
) -> dict[str, dict[str, Any]]:
    """How fast each contender was; and beside each rival, round by round, how much faster sublayer was."""
    took = {name: [_took(answer) for answer in given] for name, given in answers.items()}
    # Of one token.
    seconds = {name: [passed / tokens for tokens, passed in given] for name, given in took.items()}
    found: dict[str, dict[str, Any]] = {
        name: {
            "threads": threads[name],
            "tokens_per_second": Summary.of([1 / passed for passed in seconds[name]]).plain(),
            "milliseconds": Summary.of([1000 * passed for _, passed in took[name]]).plain(),
            "step_bytes": CONTENDERS[name].bytes_of(matrices),
            "floor_rows": batch,
            "sublayer_is_faster": {
                ours: Summary.of_ratios(seconds[name], seconds[ours]).plain()
                for ours in report.ours_beside(name)
                if ours in seconds
            },
        }
        for name in answers
    }
    for name, given in answers.items():
        if "timings" in given[0]:
            # Of one row, for who wants to compare: what llama.cpp itself says.
            found[name]["own_timing"] = Summary.of([one["timings"]["predicted_per_second"] for one in given]).plain()
    return found


def _took(answer: Message) -> tuple[int, float]:
    """Tokens, and in how many seconds."""
    if "tokens" in answer:
        return answer["tokens"], answer["seconds"]
    rows, new = len(answer["texts"]), len(answer["texts"][0])
    if new == 1:
        return rows, answer["seconds"]
    # Those after the first. On a shape for trying out noise may be longer than a step.
    return rows * (new - 1), max(answer["seconds"] - answer["first_seconds"], 1e-6)


# --- equal work ----------------------------------------------------------------------------------------------------


def _texts(given: list[Message]) -> list[Ids]:
    return [text for answer in given for text in answer["texts"]]


def _equal(expected: list[Ids], said: list[Ids]) -> dict[str, Any]:
    """How many texts are equal, and what share of the tokens, up to the first that is not."""
    pairs = list(zip(expected, said, strict=True))
    return {
        "texts": len(pairs),
        "equal": sum(one == other for one, other in pairs),
        "equal_tokens": sum(_alike(*pair) for pair in pairs) / max(1, sum(map(len, expected))),
    }


def _alike(one: Ids, other: Ids) -> int:
    """How many tokens are equal before the first that is not."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _gaps(worker: Worker, ask: Ask, expected: list[Message], given: list[Message], translates: bool) -> list[float]:
    """By how much the model prefers what was expected, where something else was said; in float32, by the modules."""
    rounds = [ask(number) for number in range(len(expected))]
    asked = [text for one in rounds for text in one["sources" if translates else "prompts"]]
    triples = zip(asked, _texts(expected), _texts(given), strict=True)
    different = [(before, one, other) for before, one, other in triples if one != other]
    if not different:
        return []
    if not translates:
        # Where they part.
        places = [_alike(one, other) for _, one, other in different]
        pairs = zip(places, different, strict=True)
        return worker.ask({"gaps": [[[*before, *one[:at]], one[at], other[at]] for at, (before, one, other) in pairs]})[
            "gaps"
        ]
    sources, one, other = map(list, zip(*different, strict=True))
    message = {"sources": sources * 2, "targets": [*one, *other], "fixed": rounds[0]["fixed"]}
    scores = worker.ask(message)["scores"]
    return [a - b for a, b in zip(scores[: len(one)], scores[len(one) :], strict=True)]


def _options() -> argparse.Namespace:
    parser = options_of.parser(__doc__, name="engine-speed")
    options_of.add_threads(parser)
    parser.add_argument("--each-threads", action="store_true", help="no choice: a line for each number of threads")
    parser.add_argument("--parts", nargs="+", default=["translation", "language"], choices=["translation", "language"])
    parser.add_argument("--translators", nargs="*", default=["small", "base"], help="presets, with random weights")
    parser.add_argument("--held-out", nargs="*", default=["small"], help="presets, trained, for real sentences")
    parser.add_argument("--train-steps", type=int, default=600, help="of those")
    language = [*language_models.PRESETS, *language_models.PULLED]
    chosen = ["llama-15m", "gpt2", "smollm2", "qwen2.5-0.5b"]
    parser.add_argument("--models", nargs="*", default=chosen, choices=language)
    parser.add_argument("--contenders", nargs="+", default=[*CONTENDERS], choices=[*CONTENDERS], metavar="NAME")
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--batches", type=int, nargs="+", help="unset: 1, 8 and 32 sentences, 1 and 16 prompts")
    parser.add_argument("--new", type=int, default=24, help="tokens of a text")
    parser.add_argument("--steps", type=int, default=64, help="tokens of the translation of a real sentence, at most")
    parser.add_argument("--prompt", type=int, default=8, help="tokens of a prompt")
    parser.add_argument(
        "--first", type=int, default=512, help="tokens of a prompt before the first token; 0: not measured"
    )
    parser.add_argument("--sentences", type=int, help="in a round; unset: by the batch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megabytes", type=int, default=1024, help="that are read to measure the memory")
    quick = {
        # As those that are trained.
        "translators": [],
        "held_out": ["tiny"],
        "train_steps": 2,
        "models": ["mini-lm"],
        # A process each: the other formats run in `generation_accuracy.py --quick`.
        "contenders": [*(name for name, one in CONTENDERS.items() if one.precision == "float32"), "llama.cpp, Q4_K"],
        "beams": [1, 2],
        "batches": [2],
        "sentences": 2,
        "new": 3,
        "steps": 4,
        "first": 16,
        "rounds": 1,
        "threads": [1],
        "megabytes": 8,
    }
    return options_of.read(parser, quick=quick)


if __name__ == "__main__":
    main()
