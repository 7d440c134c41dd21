"""Whether the contenders do the same work: with equal weights, one batch must give all the same loss and gradients.

A worker of `training_speed.py`, in a process of its own: its answer to the settings is the relative differences.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from corpus import read_encoded
from marian import to_marian
from torch import nn
from torch_transformer import with_weights_of
from training_contenders import Marian, PaddedRandom, Sublayer, TorchTransformer
from workers import Message, serve

from sublayer import config
from sublayer.data.loader import Loader


def start(settings: Message) -> tuple[Message, Any]:
    """{"transformers": {"loss": relative difference, "gradient": that of its norm}, ...}."""
    torch.manual_seed(0)
    settings = settings | {"dropout": 0.0, "precision": "float32", "device": "cpu", "tied": True}
    pairs = read_encoded(Path(settings["data"]))
    _, batch = next(Loader(pairs, config.Batching(tokens=1000), 0).batches())
    ours = Sublayer(pairs, settings)
    for parameter in ours.model.parameters():
        # Larger than at the start of a training: in small numbers an error would not show.
        if parameter.dim() > 1:
            parameter.data.mul_(2)
    rivals: dict[str, PaddedRandom] = {
        "transformers": Marian(pairs, settings),
        "torch.nn.Transformer": TorchTransformer(pairs, settings),
    }
    rivals["transformers"].model = to_marian(ours.model)
    rivals["torch.nn.Transformer"].model = with_weights_of(ours.model)
    loss = ours.backward(batch)
    different: dict[str, dict[str, float]] = {}
    for name, rival in rivals.items():
        # Marian's embedding passes no gradient to the row of pad, which only label smoothing would change.
        first = 1 if name == "transformers" else 0
        expected = _norm(ours.model, first)
        theirs = rival.backward(rival.prepared(batch))
        found = _norm(rival.model, first)
        different[name] = {"loss": abs(theirs - loss) / loss, "gradient": abs(found - expected) / expected}
    return different, lambda _: {}


def _norm(model: nn.Module, first: int) -> float:
    """The gradient's norm, of the embeddings only from row `first` on."""
    total = 0.0
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            gradient = parameter.grad[first:] if "embed" in name or "shared" in name else parameter.grad
            total += gradient.double().square().sum().item()
    return total**0.5


if __name__ == "__main__":
    serve(start)
