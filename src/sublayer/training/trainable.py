"""Which parameters learn."""

from __future__ import annotations

from torch import nn


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name, those that are tied once: all that a gradient is wanted of.

    Optimizers, averages and checkpoints hold these and no others. To train a part of a model, call
    `requires_grad_(False)` on the rest before the `Trainer` is made.
    """
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
