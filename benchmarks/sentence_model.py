"""A model in Marian's architecture that has learnt enough to end its sentences: random weights give silly lengths."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from corpus import Corpus, cache_folder
from shapes import common_shape

from sublayer import config
from sublayer.data.batch import Batch
from sublayer.data.loader import Loader
from sublayer.hub import folder as model_folder
from sublayer.models import EncoderDecoder
from sublayer.tasks.reconstruction import Reconstructing
from sublayer.training import clock
from sublayer.training.runtime import keep_freed_memory, resolve_precision
from sublayer.training.trainer import Trainer


def trained(corpus: Corpus, shape: str, steps: int, device: str) -> Path:
    """The folder of a model of `shape`, trained for `steps`, unless the cache has it already."""
    path = cache_folder() / f"marian-{shape}-{steps}-{corpus.tokenizer.fingerprint[:12]}"
    if not (path / "config.json").is_file():
        model = _train(corpus, shape, steps, device)
        bundle = model_folder.ModelBundle(model.cpu(), corpus.tokenizer, config.Decoding().plain())
        model_folder.write(path, bundle, model_folder.ModelCard(recipe="", text="A model for benchmarks.\n"))
    return path


def _train(corpus: Corpus, shape: str, steps: int, device: str) -> EncoderDecoder:
    keep_freed_memory()
    torch.manual_seed(1)
    model = EncoderDecoder(common_shape(shape, vocab_size=corpus.tokenizer.vocab_size)).to(device).train()
    training = config.Training(
        steps=steps,
        batches=config.Batching(tokens=4000),
        optimizer=config.AdamW(learning_rate=1e-3 if model.config.dim <= 256 else 5e-4),
        # Post-norm needs its warm-up.
        schedule=config.Linear(warmup=max(1, steps // 4)),
        averaging=config.NoAveraging(),
    )
    pairs = corpus.encoded
    loader = Loader(pairs, training.batches, seed=1)
    trainer = Trainer(
        model,
        loader,
        Reconstructing(pairs, training),
        training,
        precision=resolve_precision("auto", model.device),
        context=None,  # type: ignore[arg-type] # only steps are made: nothing is logged, validated or saved
    )
    batches: Iterator[Batch] = (batch for _, batch in loader.batches())
    begin = time.perf_counter()
    for step in range(steps):
        loss, _, _ = trainer._step([next(batches)], clock.place(training, step, clock.Time()).factor)
        trainer.progress = replace(trainer.progress, step=step + 1)
        if step % 50 == 49 or step == steps - 1:
            print(
                f"training weights: step {step + 1}, loss {loss:.2f}, {time.perf_counter() - begin:.0f} s", flush=True
            )
    return model.eval()
