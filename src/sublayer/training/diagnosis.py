"""Finding the first tensor that is not finite, for the message that stops a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from sublayer.models.evaluating import first_wrong_output


def parameter_not_finite(model: nn.Module) -> str | None:
    """The name of the first parameter with a NaN or infinity, in what this process has of it; None where none has."""
    bad = (name for name, parameter in model.named_parameters() if not _finite(parameter))
    name = next(bad, None)
    return None if name is None else f"the parameter {name}"


def output_not_finite(model: nn.Module, forward: Callable[[], object]) -> str | None:
    """The name of the first module whose output has a NaN or infinity in a forward pass; None where none has.

    Args:
        forward: runs the model on the batch in question.
    """
    name = first_wrong_output(model, forward, lambda output: not bool(torch.isfinite(output).all()))
    return None if name is None else f"the output of {name}"


def gradient_not_finite(model: nn.Module) -> str | None:
    """The name of the parameter whose gradient has a NaN or infinity; of several the last, where they came from.

    Gradients are computed from the output back to the input: what is wrong in one spreads to those before it.
    """
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None and not _finite(parameter.grad):
            return f"the gradient of {name}"
    return None


def _finite(tensor: Tensor) -> bool:
    # Of what is shared out over processes, each looks at its own part.
    own = cast(Any, tensor).to_local() if hasattr(tensor, "to_local") else tensor
    return bool(torch.isfinite(own).all())
