"""Train a model for three steps, and print what it took of this process's memory, and what its graph kept.

Run alone: what a process has ever taken shows in its peak. And with an allocator that gives back what is freed at once
(`GIVES_BACK`), so that the resident set is what is in use; training keeps freed blocks, and so takes more.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from sublayer import config
from sublayer.data.batch import TextBatch
from sublayer.models import build_model
from sublayer.tasks.causal import causal_loss
from sublayer.tasks.losses import CrossEntropy
from sublayer.training.averaging import build_average
from sublayer.training.optimizers import Optimizers

GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


def status(name: str) -> int:
    """Bytes, as Linux counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def train(model: config.DecoderOnly, training: config.Training, rows: int, length: int) -> int:
    """Three steps; the bytes that the graph of the last one kept beside the weights."""
    real = build_model(model)
    optimizers, average = Optimizers(real, training, model.dim), build_average(real, training.averaging)
    weights = {parameter.untyped_storage().data_ptr() for parameter in real.parameters()}
    kept: dict[int, int] = {}

    def keep(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    for step in range(3):
        tokens = torch.randint(model.vocab_size, (rows, length))
        lengths = torch.full((rows,), length)
        batch = TextBatch(tokens, lengths, tokens, lengths.numpy(), tokens.numel())
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            loss = causal_loss(real, batch, tokens.numel(), CrossEntropy(label_smoothing=0.0))  # type: ignore[arg-type]
        loss.backward()
        optimizers.step(1.0)
        optimizers.zero_grad()
        average.update(step + 1)
    return sum(kept.values())


def main() -> None:
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    model, training = config.DecoderOnly.parse(asked["model"], "model"), config.Training.parse(asked["training"], "t")
    # What the libraries take, whatever is trained.
    train(model.model_copy(update={"dim": 48, "vocab_size": 30}), training, 2, 8)
    before = status("VmRSS")
    kept = train(model, training, asked["rows"], asked["length"])
    print(json.dumps({"grown": status("VmHWM") - before, "kept": kept}))


if __name__ == "__main__":
    main()
