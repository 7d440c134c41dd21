"""Speed of text generation on a CPU: sublayer against `transformers`' `generate`, with the same weights.

    python benchmarks/generation_speed.py                        # float32, bfloat16 and int8
    python benchmarks/generation_speed.py --threads 1            # one thread for all
    python benchmarks/generation_speed.py --compile              # beside transformers through torch.compile
    python benchmarks/generation_speed.py --shapes gpt2 --batches 1 --contenders "sublayer" "transformers"

Greedy search from prompts of 32 tokens (of a batch called "ragged": of 17 to 47), as many new tokens for all. GPT-2
small and a Llama of 15 million parameters with random weights, SmolLM2-135M with its own (98 MB are fetched once). The
texts are compared with those of `transformers` in float32: of a contender in float32 they must be equal, but for near
ties; of one with narrower weights the share tells what that costs (`generation_accuracy.py` tells it better).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import machine
import options as options_of
from language_models import PRESETS, PULLED, Ids, folder_of, prompts
from summary import Summary, table, write
from workers import Message, Worker, fit_threads, interleave

HERE = Path(__file__).parent
RIVAL = "transformers"

CONTENDERS: Mapping[str, Message] = {
    "sublayer": {"library": "sublayer"},
    RIVAL: {"library": "transformers"},
    "sublayer, bfloat16": {"library": "sublayer", "weights": "bfloat16"},
    "transformers, bfloat16": {"library": "transformers", "dtype": "bfloat16"},
    "sublayer, int8": {"library": "sublayer", "weights": "int8"},
    "sublayer, int4": {"library": "sublayer", "weights": "int4"},
    "sublayer, exact": {"library": "sublayer", "weights": "exact"},
    "transformers, quantize_dynamic": {"library": "transformers", "int8": True},
    "transformers, compiled": {"library": "transformers", "compile": True},
}
"""By name, what the worker is told. GPT-2's maps are no `torch.nn.Linear`, so `quantize_dynamic` does little there."""

NARROW = ("weights", "dtype", "int8")
"""What tells a contender to keep its weights in another type."""

BATCHES: Mapping[str, tuple[int, list[int]]] = {
    "1": (1, [32]),
    "16": (16, [32]),
    "16 ragged": (16, [17, 47, 23, 41, 29, 35, 19, 45]),
}
"""By name, how many prompts, and how long they are."""


def main() -> None:
    options = _options()
    print(f"{machine.described(machine.facts())}\n")
    rows = [row for shape in options.shapes for row in _measure(shape, options)]
    print("\n" + _table(rows))
    print(f"\nWritten to {write(options, {'rows': rows})}")


def _measure(shape: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    folder = folder_of(shape)
    common = {"folder": str(folder)}
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(
                Worker(HERE / "generation_worker.py", common | CONTENDERS[name] | {"contender": name})
            )
            for name in options.contenders
        }
        refused = {name: why for name, worker in workers.items() if (why := worker.started.get("refused"))}
        for name, why in refused.items():
            print(f"{shape}, {name}: left out. {why}", flush=True)
            workers.pop(name).close()
        for batch in options.batches:
            rows.append({"shape": shape, "refused": refused, **_timed(workers, shape, folder, batch, options)})
            print(_line(rows[-1]), flush=True)
    return rows


def _timed(
    workers: dict[str, Worker], shape: str, folder: Path, batch: str, options: argparse.Namespace
) -> dict[str, Any]:
    count, lengths = BATCHES[batch]
    given = prompts(shape, folder, count * (options.rounds + 1), lengths)

    def ask(number: int) -> Message:
        return {"prompts": given[number * count : (number + 1) * count], "new": options.new}

    # On prompts of its own, which also warms up.
    threads = fit_threads(workers, ask(options.rounds), options.threads)
    interleave(workers, lambda _: ask(options.rounds), 1)
    answers = interleave(workers, ask, options.rounds)
    texts = {name: [text for a in several for text in a["texts"]] for name, several in answers.items()}
    found: dict[str, Any] = {"batch": batch, "new": options.new, "contenders": {}}
    for name, several in answers.items():
        seconds = [a["seconds"] for a in several]
        found["contenders"][name] = {
            "threads": threads[name],
            "tokens_per_second": Summary.of([count * options.new / s for s in seconds]).plain(),
            "first_token_ms": Summary.of([1000 * a["first_seconds"] for a in several]).plain(),
            **({} if RIVAL not in answers else _beside(several, answers[RIVAL], texts[name], texts[RIVAL])),
        }
    return found


def _beside(ours: list[Message], theirs: list[Message], texts: list[Ids], expected: list[Ids]) -> dict[str, Any]:
    def ratio(what: str) -> dict[str, float]:
        return Summary.of_ratios([a[what] for a in theirs], [a[what] for a in ours]).plain()

    equal = [one == other for one, other in zip(texts, expected, strict=True)]
    return {
        "faster": ratio("seconds"),
        "first_token_faster": ratio("first_seconds"),
        "equal_texts": sum(equal),
        "texts": len(equal),
        "equal_tokens": sum(map(equal_start, texts, expected)) / sum(map(len, expected)),
    }


def equal_start(text: Ids, expected: Ids) -> int:
    """How many tokens are equal before the first that is not."""
    return next((place for place, pair in enumerate(zip(text, expected, strict=True)) if len(set(pair)) > 1), len(text))


def _line(row: dict[str, Any]) -> str:
    shown = [
        f"{name} {found['tokens_per_second']['median']:.1f} tokens/s"
        + (
            f" (x{found['faster']['median']:.2f}, {found['equal_texts']}/{found['texts']} equal)"
            if name != RIVAL and "faster" in found
            else ""
        )
        for name, found in row["contenders"].items()
    ]
    return f"{row['shape']}, batch {row['batch']}: " + ", ".join(shown)


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        [
            f"{row['shape']}, batch {row['batch']}: {name}",
            Summary(**found["tokens_per_second"]).shown(1),
            Summary(**found["first_token_ms"]).shown(1),
            str(found["threads"]),
            *(
                ("", "", "")
                if name == RIVAL or "faster" not in found
                else (
                    Summary(**found["faster"]).shown(),
                    Summary(**found["first_token_faster"]).shown(),
                    f"{found['equal_texts']} of {found['texts']} ({100 * found['equal_tokens']:.1f}% of the tokens)",
                )
            ),
        ]
        for row in rows
        for name, found in row["contenders"].items()
    ]
    header = [
        "model, batch: contender",
        "tokens/s (quartiles)",
        "first token, ms",
        "threads",
        f"faster than {RIVAL} by",
        "first token",
        "equal texts",
    ]
    return table(header, lines)


def _options() -> argparse.Namespace:
    parser = options_of.parser(__doc__, name="generation-speed")
    options_of.add_threads(parser)
    parser.add_argument("--shapes", nargs="+", default=["gpt2", "llama-15m", "smollm2"], choices=[*PRESETS, *PULLED])
    parser.add_argument("--batches", nargs="+", default=["1", "16"], choices=[*BATCHES])
    parser.add_argument(
        "--contenders",
        nargs="+",
        choices=[*CONTENDERS],
        metavar="NAME",
        help=f"unset: all but the exact and the compiled, bfloat16 only where it is fast ({'; '.join(CONTENDERS)})",
    )
    parser.add_argument("--compile", action="store_true", help="transformers eager and compiled, in float32")
    parser.add_argument("--new", type=int, default=64, help="tokens of a text")
    parser.add_argument("--rounds", type=int, default=3)
    quick = {
        "shapes": ["mini-lm"],
        "batches": ["1", "16 ragged"],
        # The others run in `generation_accuracy.py --quick`.
        "contenders": ["sublayer", RIVAL],
        "new": 3,
        "rounds": 1,
        "threads": [1],
    }
    options = options_of.read(parser, quick=quick)
    if options.contenders is None:
        left_out = {*NARROW} if options.compile else {"compile"}
        slow = {"float32", "bfloat16"} - {*options_of.precisions()} | {"exact"}
        options.contenders = [
            name for name, told in CONTENDERS.items() if not told.keys() & left_out and not {*told.values()} & slow
        ]
    return options


if __name__ == "__main__":
    main()
