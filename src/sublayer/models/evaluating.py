"""A model while it is only asked: without dropout, and afterwards as it was; and where its numbers go wrong."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sublayer.nn.tap import Hook, hooked, named_modules


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Inside the block no module is in training; when it ends, each is in the mode in which it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def first_wrong_output(model: nn.Module, forward: Callable[[], object], wrong: Callable[[Tensor], bool]) -> str | None:
    """The name of the first module whose output is `wrong` while `forward` runs; None where none is."""
    found: list[str] = []

    def watch(name: str) -> Hook:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if not found and isinstance(output, Tensor) and wrong(output):
                found.append(name)

        return hook

    with torch.no_grad(), hooked({name: module for name, module in named_modules(model) if name}, watch):
        forward()
    return found[0] if found else None
