"""Finding the first tensor that is not finite, for the message that stops a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


def first_not_finite(model: nn.Module, forward: Callable[[], object]) -> str:
    """The name of the first parameter, or else the first module output in a forward pass, with a NaN or infinity.

    Args:
        forward: runs the model on the batch in question.
    """
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            return f"the parameter {name}"
    found: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if not found and isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
                found.append(f"the output of {name}")

        return hook

    handles: list[RemovableHandle] = []
    for name, module in cast("Iterable[tuple[str, nn.Module]]", model.named_modules()):
        if name:
            handles.append(module.register_forward_hook(watch(name)))
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "the loss itself (every output before it is finite)"


def gradient_not_finite(model: nn.Module) -> str:
    """The name of the parameter whose gradient has a NaN or infinity; of several the last, where they came from.

    Gradients are computed from the output back to the input: what is wrong in one spreads to those before it.
    """
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            return f"the gradient of {name}"
    return "the norm of the gradient (every gradient is finite, their squares add up to more than a float holds)"
