"""The worker of `language_training_speed.py`: one contender, training a language model on the rows that it is given.

A step is forward, loss, backward, clipping, fused AdamW; the tokens are the same for all, all of them real.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from training_contenders import CLIP, LEARNING_RATE, autocast
from workers import Message, serve

from sublayer import config
from sublayer.data.batch import IGNORE, TextBatch
from sublayer.hub.importing import import_folder
from sublayer.tasks.causal import Modelling
from sublayer.training.runtime import keep_freed_memory
from sublayer.training.trainer import Trainer


class Contender(Protocol):
    model: nn.Module

    def backward(self, tokens: Tensor) -> float:
        """The loss of tokens [B, S], and gradients where there were none."""
        ...

    def step(self, tokens: Tensor) -> float: ...


class Sublayer:
    """sublayer's own `Trainer`."""

    def __init__(self, settings: Message) -> None:
        keep_freed_memory()
        model: Any = import_folder(Path(settings["folder"])).model
        self.model = model.train()
        training = config.Training(
            steps=10**9,
            optimizer=config.AdamW(learning_rate=LEARNING_RATE),
            label_smoothing=0.0,
            clip_norm=CLIP,
            averaging=config.NoAveraging(),
        )
        self.trainer = Trainer(
            self.model,
            None,  # type: ignore[arg-type] # steps are asked for one by one
            Modelling(None, training, None),  # type: ignore[arg-type] # nothing is validated
            training,
            precision=getattr(torch, settings["precision"]),
            context=None,  # type: ignore[arg-type] # nothing is logged, validated or saved
        )

    def backward(self, tokens: Tensor) -> float:
        batch = self._batch(tokens)
        loss = self.trainer._loss(batch, batch.targets)
        loss.backward()
        return loss.item()

    def step(self, tokens: Tensor) -> float:
        loss, _, _ = self.trainer._step([self._batch(tokens)], factor=1.0)
        return loss

    @staticmethod
    def _batch(tokens: Tensor) -> TextBatch:
        rows, size = tokens.shape
        target = torch.full_like(tokens, IGNORE)
        target[:, :-1] = tokens[:, 1:]
        return TextBatch(tokens, torch.full((rows,), size), target, np.arange(rows), rows * (size - 1))


class Transformers:
    """`transformers`' model with its own loss, as its `Trainer` trains it."""

    def __init__(self, settings: Message) -> None:
        from transformers import AutoModelForCausalLM

        self.model: Any = AutoModelForCausalLM.from_pretrained(settings["folder"], dtype=torch.float32).train()
        self.model.config.use_cache = False
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, fused=True)
        self.autocast = autocast(settings | {"device": "cpu"})

    def backward(self, tokens: Tensor) -> float:
        with self.autocast():
            loss = self.model(input_ids=tokens, labels=tokens).loss
        self.optimizer.zero_grad()
        loss.backward()
        return loss.item()

    def step(self, tokens: Tensor) -> float:
        loss = self.backward(tokens)
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        return loss


CONTENDERS: dict[str, Callable[[Message], Contender]] = {"sublayer": Sublayer, "transformers": Transformers}


def start(settings: Message) -> tuple[Message, Callable[[Message], Message]]:
    """Load the model; it answers {"check": rows} with loss and gradient, and {"batches": [rows, ...]} with seconds."""
    contender = CONTENDERS[settings["contender"]](settings)

    def answer(ask: Message) -> Message:
        if "check" in ask:
            loss = contender.backward(torch.tensor(ask["check"]))
            norm = torch.nn.utils.get_total_norm([p.grad for p in contender.model.parameters() if p.grad is not None])
            contender.model.zero_grad()
            return {"loss": loss, "gradient": norm.item()}
        batches = [torch.tensor(rows) for rows in ask["batches"]]
        begin = time.perf_counter()
        for tokens in batches:
            contender.step(tokens)
        return {"seconds": time.perf_counter() - begin}

    return {"threads": torch.get_num_threads()}, answer


if __name__ == "__main__":
    serve(start)
