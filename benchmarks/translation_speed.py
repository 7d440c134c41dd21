"""Translation speed: sublayer against `transformers`' `generate`, with the same weights, on real held-out sentences.

    python benchmarks/translation_speed.py --train-steps 600
    python benchmarks/translation_speed.py --model runs/a-run-in-marian's-architecture

Greedy search and beam 4, batches of 1 and 32, the same batches and the same length limit for all. For greedy search
there is a third column: `torch.nn.Transformer` with the same weights, feeding the prefix again at each step. What is
translated must be equal token for token; where it is not, the two translations' scores under the model tell a near
tie from an error.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import corpus
import machine
import options as options_of
from marian import why_not_marian
from sentence_model import trained
from summary import Summary, table, write
from workers import Message, Worker, fit_threads, interleave

import sublayer
from sublayer.data.sources import grouped

HERE = Path(__file__).parent
OURS, RIVAL, TORCH = "sublayer", "transformers", "torch.nn.Transformer"
# Scores per token of two different translations closer than this are one rounding error apart.
TIE = 1e-4


def main() -> None:
    options = _options()
    data = corpus.example() if options.quick else corpus.load()
    path = options.model or trained(data, options.shape, options.train_steps, options.device)
    translator = sublayer.load(path)
    if reasons := why_not_marian(translator.model.config):
        raise SystemExit(f"{path} has no counterpart in transformers: {'; '.join(reasons)}")
    sources = translator.encode(grouped(data.splits.test)[0])
    print(f"{machine.described(machine.facts(options.device))}\n")
    settings = {"model": str(path), "device": options.device, "precision": options.precision}
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(Worker(HERE / "translation_worker.py", settings | {"contender": name}))
            for name in (OURS, RIVAL, TORCH)
        }
        for beam in options.beams:
            for batch in options.batches:
                rows.append(_measure(workers, sources, options, beam, batch))
                print(_line(rows[-1]), flush=True)
    print("\n" + _table(rows))
    print(f"\nWritten to {write(options, {'held_out_sentences': len(sources), 'rows': rows}, options.device)}")


def _measure(
    workers: dict[str, Worker], sources: list[list[int]], options: argparse.Namespace, beam: int, batch: int
) -> dict[str, Any]:
    # Rounds of like length: of single sentences fewer than of batches.
    count = options.sentences or (32 if batch == 1 else 4 * batch)
    taken = {name: worker for name, worker in workers.items() if beam == 1 or name != TORCH}

    def ask(number: int) -> Message:
        picked = [sources[(number * count + i) % len(sources)] for i in range(count)]
        return {"sources": picked, "batch": batch, "beam": beam, "steps": options.steps}

    # On sentences of its own, which also warms up.
    threads = fit_threads(taken, ask(options.rounds), options.threads, lambda a: a["tokens"] / a["seconds"])
    interleave(taken, lambda _: ask(options.rounds), 1)
    answers = interleave(taken, ask, options.rounds)
    seconds = {name: [a["seconds"] for a in given] for name, given in answers.items()}
    tokens = sum(a["tokens"] for a in answers[OURS]) / (count * options.rounds)
    return {
        "beam": beam,
        "batch": batch,
        "threads": threads,
        "tokens_a_sentence": tokens,
        "sentences_per_second": {n: Summary.of([count / s for s in given]).plain() for n, given in seconds.items()},
        "tokens_per_second": {
            name: Summary.of([a["tokens"] / a["seconds"] for a in given]).plain() for name, given in answers.items()
        },
        "sublayer_is_faster": {
            name: Summary.of_ratios(given, seconds[OURS]).plain() for name, given in seconds.items() if name != OURS
        },
        "equal": {
            name: _compared(workers[OURS], [ask(number)["sources"] for number in range(options.rounds)], answers, name)
            for name in taken
            if name != OURS
        },
    }


def _compared(
    ours: Worker, sources: list[list[list[int]]], answers: dict[str, list[Message]], rival: str
) -> dict[str, Any]:
    """How many translations are equal token for token, and about the others how far apart their scores are."""
    triples = [
        triple
        for number, given in enumerate(sources)
        for triple in zip(
            given, answers[OURS][number]["translations"], answers[rival][number]["translations"], strict=True
        )
    ]
    different = [(source, one, other) for source, one, other in triples if one != other]
    gaps: list[float] = []
    if different:
        both = [*(one for _, one, _ in different), *(other for _, _, other in different)]
        scores = ours.ask({"sources": [source for source, _, _ in different] * 2, "targets": both})["scores"]
        gaps = [a - b for a, b in zip(scores[: len(different)], scores[len(different) :], strict=True)]
    return {
        "sentences": len(triples),
        "equal_percent": 100 * (1 - len(different) / len(triples)),
        "near_ties": sum(abs(gap) < TIE for gap in gaps),
        "different": [
            {"source": source, "sublayer": one, rival: other, "score_gap": gap}
            for (source, one, other), gap in zip(different, gaps, strict=True)
        ],
    }


def _line(row: dict[str, Any]) -> str:
    speeds = ", ".join(f"{n} {speed['median']:.1f}" for n, speed in row["sentences_per_second"].items())
    equal = "; ".join(
        f"equal to {name}: {value['equal_percent']:.1f}% of {value['sentences']}"
        + (f" ({len(value['different'])} differ, {value['near_ties']} near ties)" if value["different"] else "")
        for name, value in row["equal"].items()
    )
    return f"beam {row['beam']}, batch {row['batch']}: sentences/s {speeds}; {equal}"


def _table(rows: list[dict[str, Any]]) -> str:
    def cell(row: dict[str, Any], what: str, name: str, digits: int) -> str:
        return Summary(**row[what][name]).shown(digits) if name in row[what] else "–"

    lines = [
        [
            ("greedy" if row["beam"] == 1 else f"beam {row['beam']}") + f", batch {row['batch']}",
            cell(row, "sentences_per_second", OURS, 1),
            cell(row, "sentences_per_second", RIVAL, 1),
            cell(row, "sentences_per_second", TORCH, 1),
            f"{row['tokens_per_second'][OURS]['median']:,.0f}",
            " / ".join(str(row["threads"].get(name, "–")) for name in (OURS, RIVAL, TORCH)),
            cell(row, "sublayer_is_faster", RIVAL, 2),
            cell(row, "sublayer_is_faster", TORCH, 2),
            f"{row['equal'][RIVAL]['equal_percent']:.1f}%",
        ]
        for row in rows
    ]
    header = [
        "search, batch",
        "sublayer, sentences/s (quartiles)",
        RIVAL,
        TORCH,
        "sublayer, tokens/s",
        "threads of each",
        f"faster than {RIVAL} by",
        f"faster than {TORCH} by",
        f"equal to {RIVAL}",
    ]
    return table(header, lines)


def _options() -> argparse.Namespace:
    parser = options_of.parser(__doc__, name="translation-speed-SHAPE")
    options_of.add_threads(parser)
    parser.add_argument("--model", type=Path, help="a trained model in Marian's architecture")
    parser.add_argument("--train-steps", type=int, default=600, help="without --model: train one for so many steps")
    parser.add_argument("--shape", default="small", help="without --model: a preset's sizes (small, base, ...)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--sentences", type=int, help="in a round; unset: 32 one by one, 4 batches of several")
    parser.add_argument("--steps", type=int, default=64, help="tokens of a translation at most")
    parser.add_argument("--rounds", type=int, default=5)
    quick = {
        "shape": "tiny",
        "train_steps": 2,
        "batches": [1, 2],
        "beams": [1, 2],
        "sentences": 2,
        "steps": 4,
        "rounds": 1,
        "threads": [1],
    }
    chosen = options_of.read(parser, quick=quick)
    chosen.name = chosen.name.replace("SHAPE", chosen.model.name if chosen.model else chosen.shape)
    return chosen


if __name__ == "__main__":
    main()
