"""How fast text of any size is prepared and read, and how much memory that takes.

    python benchmarks/large_corpus.py --lines 10000000 --workers 1

Pairs of made-up sentences (words of a Zipf distribution, 2 to 7 a side) are written to a file, prepared, and read for
as many batches as --windows have. Memory is the peak of the resident set (`getrusage`), of each stage in a process
of its own; of several workers that of the largest.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import machine
import numpy as np
import options as options_of
from summary import table, write

RECIPE: dict[str, Any] = {
    "name": "large",
    "data": {
        "source": {"type": "tsv", "path": "large.tsv"},
        "split": {"type": "random", "validation": 500, "test": 2000},
        "filter": {"duplicates": True, "length_ratio": 4.0},
    },
    "tokenizer": {"type": "bpe", "vocab_size": 8000},
    "model": {"preset": "small"},
    "training": {"steps": 1, "batches": {"tokens": 25000}},
}


def generate(folder: Path, lines: int) -> None:
    draw = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(draw.choice(letters, size=length)) for length in draw.integers(2, 10, size=30_000)])
    with (folder / "large.tsv").open("w", encoding="utf-8") as out:
        for first in range(0, lines, 100_000):
            count = min(100_000, lines - first)
            lengths = draw.integers(2, 8, size=2 * count)
            chosen = words[np.minimum(draw.zipf(1.2, size=int(lengths.sum())) - 1, len(words) - 1)].tolist()
            ends = np.cumsum(lengths).tolist()
            sides = [" ".join(chosen[end - length : end]) for end, length in zip(ends, lengths.tolist(), strict=True)]
            out.writelines(f"{one}\t{other}\n" for one, other in zip(sides[::2], sides[1::2], strict=True))


def prepare(folder: Path, workers: int) -> None:
    from sublayer.config import Recipe
    from sublayer.config.load import LoadedRecipe
    from sublayer.training.preparing import prepare_shards

    def timed(title: str, work: Callable[[Callable[[int, int], None]], None]) -> None:
        started = time.perf_counter()
        work(lambda done, total: None)
        print(f"    {title}: {time.perf_counter() - started:.0f} s", flush=True)

    index, _ = prepare_shards(LoadedRecipe(Recipe.parse(RECIPE, "large"), folder), folder / "shards", workers, timed)
    print(f"    {index.report.report}")


def read(folder: Path, windows: int) -> None:
    from sublayer import config
    from sublayer.data.encoding import EncodedPairs
    from sublayer.data.loader import WINDOW, Loader
    from sublayer.data.shards.index import Shards
    from sublayer.data.shards.windows import Windows
    from sublayer.text import PairAffixes, Tokenizer

    shards = Shards.open(folder / "shards")
    affixes = PairAffixes.of(Tokenizer.load(folder / "shards" / "tokenizer.json"), config.Decoding())
    corpus = Windows(shards, lambda ids, report: EncodedPairs(*ids, np.arange(len(ids[0])), report, affixes))
    size = sum(shard.bytes for shard in shards.index.shards)
    print(f"    {len(shards):,} rows, {size / 1e6:,.0f} MB, {corpus.count} windows")
    started = time.perf_counter()
    loader = Loader(corpus, config.Batching(tokens=25_000), 1)
    print(f"    first window: {time.perf_counter() - started:.1f} s")
    batches, tokens, real = 0, 0, 0
    for cursor, batch in islice(loader.batches(), 1_000_000):
        assert batch is not None
        batches, tokens = batches + 1, tokens + batch.source.numel() + batch.target_in.numel()
        real += int(batch.source_lengths.sum()) + batch.targets
        if cursor.epoch or cursor.step >= windows * WINDOW:
            break
    seconds = time.perf_counter() - started
    print(f"    {batches:,} batches, {real / seconds:,.0f} tokens/s, {1 - real / tokens:.2%} padding", flush=True)


def measured(stage: Callable[..., None], *arguments: Any) -> dict[str, Any]:
    """A stage in a process of its own, with its time and memory."""
    context = multiprocessing.get_context("spawn")
    answer = context.SimpleQueue()
    started = time.perf_counter()
    process = context.Process(target=_alone, args=(answer, stage, arguments))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{stage.__name__} ended with {process.exitcode}")
    own, workers = answer.get()
    return {"stage": stage.__name__, "seconds": time.perf_counter() - started, "megabytes": own, "of a worker": workers}


def _alone(answer: Any, stage: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    stage(*arguments)
    answer.put([resource.getrusage(who).ru_maxrss / 1e3 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)])


def main() -> None:
    parser = options_of.parser(__doc__, name="large-corpus")
    parser.add_argument("--folder", type=Path, help="where to write (default: one that is removed afterwards)")
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--windows", type=int, default=2)
    asked = options_of.read(parser, quick={"lines": 4000, "windows": 1})
    print(f"{machine.described(machine.facts())}\n")
    with ExitStack() as stack:
        folder = asked.folder or Path(stack.enter_context(TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        stages = (generate, asked.lines), (prepare, asked.workers), (read, asked.windows)
        rows = [measured(stage, folder, setting) for stage, setting in stages]
    lines = [
        [row["stage"], f"{row['seconds']:.0f}", f"{row['megabytes']:,.0f}", f"{row['of a worker']:,.0f}"]
        for row in rows
    ]
    print("\n" + table([f"{asked.lines:,} lines", "seconds", "peak memory, MB", "of a worker, MB"], lines))
    print(f"\nWritten to {write(asked, {'rows': rows})}")


if __name__ == "__main__":
    main()
