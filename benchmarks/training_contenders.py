"""Who competes in `training_speed.py`.

A contender says how it makes its batches when left to itself, how it takes a given batch, and what a full optimizer
step is: forward, loss with label smoothing, backward, clipping, optimizer. Each does these as its users do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from shapes import common_shape
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from workers import Message

from sublayer import config
from sublayer.data.batch import IGNORE, Batch
from sublayer.data.encoding import EncodedPairs
from sublayer.data.loader import Loader

SMOOTHING = 0.1
CLIP = 1.0
# Neither rate nor schedule enters the speed; this one keeps every contender's numbers ordinary.
LEARNING_RATE = 3e-4


class Contender(Protocol):
    """What the worker asks of a model in training. Its own batches hold what `step` takes, on the CPU."""

    def own_batches(self) -> Iterator[tuple[Any, int]]: ...

    def prepared(self, batch: Batch) -> Any: ...

    def step(self, batch: Any) -> float: ...


class Sublayer:
    """sublayer's own `Trainer`: bucketed batches under a budget, fused AdamW; no averaging, as nobody else does it."""

    def __init__(self, pairs: EncodedPairs, settings: Message) -> None:
        from sublayer.models import EncoderDecoder
        from sublayer.tasks.reconstruction import Reconstructing
        from sublayer.training.runtime import keep_freed_memory
        from sublayer.training.trainer import Trainer

        keep_freed_memory()
        c = common_shape(settings["shape"], vocab_size=settings["vocab_size"], dropout=settings["dropout"])
        self.model = EncoderDecoder(c).to(settings["device"]).train()
        training = config.Training(
            steps=10**9,
            batches=config.Batching(tokens=settings["tokens"]),
            optimizer=config.AdamW(learning_rate=LEARNING_RATE),
            label_smoothing=SMOOTHING,
            clip_norm=CLIP,
            averaging=config.NoAveraging(),
        )
        self.loader = Loader(pairs, training.batches, settings["seed"])
        self.trainer = Trainer(
            self.model,
            self.loader,
            Reconstructing(pairs, training),
            training,
            precision=getattr(torch, settings["precision"]),
            # Only steps are made here: nothing is logged, validated or saved.
            context=None,  # type: ignore[arg-type]
        )

    def own_batches(self) -> Iterator[tuple[Batch, int]]:
        return ((batch, batch.targets) for _, batch in self.loader.batches())

    def prepared(self, batch: Batch) -> Batch:
        return batch

    def backward(self, batch: Batch) -> float:
        loss = self.trainer._loss(batch, batch.targets)
        loss.backward()
        return loss.item()

    def step(self, batch: Batch) -> float:
        loss, _, _ = self.trainer._step([batch], factor=1.0)
        return loss


class PaddedRandom:
    """A rival's own batches: a fixed number of rows at random, padded to the longest, from a `DataLoader`."""

    def __init__(self, pairs: EncodedPairs, settings: Message) -> None:
        self.pairs, self.rows = pairs, settings["rows"]
        self.device = settings["device"]
        self.generator = torch.Generator().manual_seed(settings["seed"])
        self.autocast = autocast(settings)

    def own_batches(self) -> Iterator[tuple[Any, int]]:
        # As lists of tensors, made beforehand: reading ids is not what is measured.
        end = torch.tensor([self.pairs.affixes.end])
        rows = [
            (torch.cat([torch.from_numpy(self.pairs.sources[row]).long(), end]), self._target(row))
            for row in range(len(self.pairs))
        ]
        loader = DataLoader(
            rows,  # type: ignore[arg-type]
            batch_size=self.rows,
            shuffle=True,
            drop_last=True,
            collate_fn=self._collate,
            generator=self.generator,
        )
        while True:
            yield from loader

    def _target(self, row: int) -> Tensor:
        ids = torch.from_numpy(self.pairs.targets[row]).long()
        return torch.cat([torch.tensor([self.pairs.affixes.start]), ids, torch.tensor([self.pairs.affixes.end])])

    def _collate(self, rows: list[tuple[Tensor, Tensor]]) -> tuple[Any, int]:
        source = pad_sequence([source for source, _ in rows], batch_first=True, padding_value=self.pairs.affixes.pad)
        target = pad_sequence([target for _, target in rows], batch_first=True, padding_value=self.pairs.affixes.pad)
        tokens = sum(len(target) - 1 for _, target in rows)
        return self.batch(source, target[:, :-1], target[:, 1:]), tokens

    def batch(self, source: Tensor, target_in: Tensor, target_out: Tensor) -> Any:
        raise NotImplementedError

    def prepared(self, batch: Batch) -> Any:
        pad = self.pairs.affixes.pad
        return self.batch(batch.source, batch.target_in, batch.target_out.masked_fill(batch.target_out == IGNORE, pad))


class TorchTransformer(PaddedRandom):
    """`torch.nn.Transformer` as in PyTorch's tutorial: `nn.CrossEntropyLoss`, Adam."""

    def __init__(self, pairs: EncodedPairs, settings: Message) -> None:
        from torch_transformer import from_shape

        super().__init__(pairs, settings)
        c = common_shape(settings["shape"], vocab_size=settings["vocab_size"])
        self.model = from_shape(c, dropout=settings["dropout"], tied=settings["tied"]).to(self.device).train()
        self.loss = nn.CrossEntropyLoss(ignore_index=pairs.affixes.pad, label_smoothing=SMOOTHING)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), eps=1e-9)

    def batch(self, source: Tensor, target_in: Tensor, target_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return source, target_in, target_out

    def backward(self, batch: tuple[Tensor, Tensor, Tensor]) -> float:
        source, target_in, target_out = (part.to(self.device) for part in batch)
        with self.autocast():
            logits = self.model(source, target_in)
            loss = self.loss(logits.flatten(0, 1), target_out.flatten())
        self.optimizer.zero_grad()
        loss.backward()
        return loss.item()

    def step(self, batch: tuple[Tensor, Tensor, Tensor]) -> float:
        loss = self.backward(batch)
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        return loss


class Marian(PaddedRandom):
    """`transformers`' MarianMTModel as its `Trainer` trains it: its label smoother, fused AdamW, no cache."""

    def __init__(self, pairs: EncodedPairs, settings: Message) -> None:
        from marian import marian_config
        from transformers import MarianMTModel
        from transformers.trainer_pt_utils import LabelSmoother

        super().__init__(pairs, settings)
        c = common_shape(settings["shape"], vocab_size=settings["vocab_size"], dropout=settings["dropout"])
        self.model = MarianMTModel(marian_config(c)).to(self.device).train()
        self.model.config.use_cache = False
        self.loss = LabelSmoother(epsilon=SMOOTHING)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, fused=True)

    def batch(self, source: Tensor, target_in: Tensor, target_out: Tensor) -> dict[str, Tensor]:
        # What DataCollatorForSeq2Seq makes.
        return {
            "input_ids": source,
            "attention_mask": (source != self.pairs.affixes.pad).long(),
            "decoder_input_ids": target_in,
            "labels": target_out.masked_fill(target_out == self.pairs.affixes.pad, -100),
        }

    def backward(self, batch: dict[str, Tensor]) -> float:
        batch = {name: part.to(self.device) for name, part in batch.items()}
        labels = batch.pop("labels")
        with self.autocast():
            outputs = self.model(**batch)
        # Accelerate turns what autocast leaves into float32 before the Trainer's loss.
        loss = self.loss({"logits": outputs.logits.float()}, labels)
        self.optimizer.zero_grad()
        loss.backward()
        return loss.item()

    def step(self, batch: dict[str, Tensor]) -> float:
        loss = self.backward(batch)
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        return loss


class _Autocast(Protocol):
    def __call__(self) -> AbstractContextManager[Any]: ...


def autocast(settings: Message) -> _Autocast:
    """A maker of the context for the forward pass at the precision that is asked for."""
    kind = torch.device(settings["device"]).type
    if settings["precision"] == "bfloat16":
        return lambda: torch.autocast(kind, dtype=torch.bfloat16)
    return nullcontext


CONTENDERS = {"sublayer": Sublayer, "torch.nn.Transformer": TorchTransformer, "transformers": Marian}
