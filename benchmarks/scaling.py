"""How training grows with processes: 1, 2, … of one thread each, on the same machine.

    python benchmarks/scaling.py [--processes 1 2] [--layouts replicate shard tensor]

Strong scaling: the same batch, shared out; its ideal is a time divided by the processes. Weak scaling: a batch that
grows with the processes; its ideal is the same time. Communication is the time in which the collectives of
torch.distributed (gloo) ran, or waited for the slowest process, as the profiler has it, over that of the step.
Processes on one machine share its memory and its caches: the figures say what these cores allow, and nothing of a
network.

Each figure is the fastest of the rounds, with the model and the batches of `--dim`, `--layers` and `--tokens`.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np
import options
import torch
from numpy.typing import NDArray
from summary import table, write

from sublayer import config
from sublayer.data.batch import TextBatch, as_tensor
from sublayer.models import build_model
from sublayer.tasks.causal import Modelling
from sublayer.training.distributed.ranks import Ranks, joined
from sublayer.training.metrics import NoLog
from sublayer.training.progress import Silent
from sublayer.training.run import processes_of
from sublayer.training.trainer import Trainer, TrainerContext

LAYOUTS: dict[str, dict[str, Any]] = {
    "replicate": {"data": "replicate"},
    "shard": {"data": "shard"},
    "tensor": {"tensor": 0},
}
"""By name, what `[training.parallel]` says; of `tensor` as many as there are processes."""

COLLECTIVES = ("gloo:", "nccl:", "c10d::")


def main() -> None:
    if os.environ.get("RANK") is not None:
        work()
        return
    chosen = _options()
    alone = measured(chosen, 1, "replicate", "strong")
    rows: list[dict[str, Any]] = []
    for layout in chosen.layouts:
        for processes in [each for each in chosen.processes if each > 1]:
            for growth in ("strong", "weak"):
                if growth == "weak" and layout == "tensor":
                    continue  # those that share matrices read the same rows
                found = measured(chosen, processes, layout, growth)
                ideal = alone["seconds"] / (processes if growth == "strong" else 1)
                rows.append({**found, "efficiency": ideal / found["seconds"]})
    rows = [{**alone, "efficiency": 1.0}, *rows]
    print(f"\n{machine.described(machine.facts())}\n\n{_table(rows)}")
    print(f"\nWritten to {write(chosen, {'rows': rows})}")


def measured(chosen: argparse.Namespace, processes: int, layout: str, growth: str) -> dict[str, Any]:
    """The fastest step of so many processes, and the share of it that is communication."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    asked = {
        key: getattr(chosen, key) for key in ("dim", "layers", "tokens", "length", "vocabulary", "steps", "rounds")
    }
    asked |= {"layout": layout, "tokens": chosen.tokens * (processes if growth == "weak" else 1)}
    members = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__)), json.dumps(asked)],
            env={
                **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
            text=True,
        )
        for rank in range(processes)
    ]  # fmt: skip
    said, _ = members[0].communicate()
    assert all(member.wait() == 0 for member in members), "a process failed"
    return {"processes": processes, "layout": layout, "growth": growth, **json.loads(said.splitlines()[-1])}


def work() -> None:
    """What one process does: steps of a language model on drawn tokens, timed and then profiled."""
    asked = argparse.Namespace(**json.loads(sys.argv[-1]))
    torch.set_num_threads(1)
    with joined(torch.device("cpu")) as ranks:
        trainer, batches = _trainer(asked, ranks)
        times: list[float] = []
        trainer._step(batches, 1.0)
        for _ in range(asked.rounds):
            ranks.wait()
            began = time.perf_counter()
            for _ in range(asked.steps):
                trainer._step(batches, 1.0)
            times += ranks.most((time.perf_counter() - began) / asked.steps)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            began = time.perf_counter()
            trainer._step(batches, 1.0)
            whole = time.perf_counter() - began
        spent = [event for event in profile.events() if event.name.startswith(COLLECTIVES)]
        share = _covered([(e.time_range.start, e.time_range.end) for e in spent]) / 1e6 / whole
    if ranks.first:
        print(json.dumps({"seconds": min(times), "tokens": asked.tokens, "communication": min(share, 1.0)}))


def _covered(ranges: list[tuple[float, float]]) -> float:
    """The length of what is covered, where ranges overlap."""
    total, end = 0.0, float("-inf")
    for first, last in sorted(ranges):
        total += max(0.0, last - max(first, end))
        end = max(end, last)
    return total


def _trainer(asked: argparse.Namespace, ranks: Ranks) -> tuple[Trainer[TextBatch], list[TextBatch]]:
    """A trainer of this process, and the rows of the one batch that are its own."""
    block = config.Block(
        attention=config.Attention(heads=max(1, asked.dim // 32)),
        feed_forward=config.PositionWise(hidden=4 * asked.dim),
        norm_placement="pre",
    )
    tree = config.DecoderOnly(
        dim=asked.dim,
        vocab_size=asked.vocabulary,
        max_length=asked.length,
        decoder=config.Stack(layers=asked.layers, block=block, position=config.Rotary()),
    )
    layout = LAYOUTS[asked.layout]
    parallel = config.Parallel(**{**layout, **({"tensor": ranks.size} if "tensor" in layout else {})})
    c = config.Training(
        steps=10_000,
        parallel=parallel,
        precision="float32",
        averaging=config.NoAveraging(),
        batches=config.Batching(tokens=asked.tokens),
        label_smoothing=0.0,
    )
    torch.manual_seed(0)
    model = build_model(tree)
    objective = Modelling(None, c, None)  # type: ignore[arg-type] # nothing is validated
    processes = processes_of(ranks, model, objective, c, torch.device("cpu"), Silent())
    rows = np.arange(asked.tokens // asked.length)[processes.share.reader :: processes.share.readers]
    context = TrainerContext(NoLog(), Silent(), Path("nowhere"), lambda: None)
    trainer = Trainer(
        model,
        None,  # type: ignore[arg-type] # steps are asked for one by one
        objective,
        c,
        precision=torch.float32,
        context=context,
        processes=processes,
    )
    trainer.model.train()
    return trainer, [_batch(rows, asked)]


def _batch(rows: NDArray[np.int64], asked: argparse.Namespace) -> TextBatch:
    tokens = np.stack([np.random.default_rng(int(row)).integers(0, asked.vocabulary, asked.length + 1) for row in rows])
    lengths = as_tensor(np.full(len(rows), asked.length))
    return TextBatch(
        as_tensor(tokens[:, :-1].copy()), lengths, as_tensor(tokens[:, 1:].copy()), rows, len(rows) * asked.length
    )


def _table(rows: list[dict[str, Any]]) -> str:
    return table(
        ["layout", "processes", "scaling", "tokens a step", "ms a step", "tokens/s", "of the ideal", "communication"],
        [
            [row["layout"], str(row["processes"]), row["growth"], f"{row['tokens']:,}", f"{1e3 * row['seconds']:.1f}",
             f"{row['tokens'] / row['seconds']:,.0f}", f"{row['efficiency']:.0%}", f"{row['communication']:.0%}"]
            for row in rows
        ],
    )  # fmt: skip


def _options() -> argparse.Namespace:
    parser = options.parser(__doc__, name="scaling")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--layouts", nargs="+", default=[*LAYOUTS], choices=[*LAYOUTS])
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=8000)
    parser.add_argument("--length", type=int, default=128, help="tokens of a row (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=4096, help="of a batch (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=5, help="of a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    quick = {"dim": 32, "layers": 1, "vocabulary": 50, "length": 16, "tokens": 64, "steps": 1, "rounds": 1,
             "layouts": ["shard"]}  # fmt: skip
    return options.read(parser, quick=quick)


if __name__ == "__main__":
    main()
