"""The functions that stand between two linear maps, by their names in the configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor
from torch.nn import functional as F

from sublayer import config, fast


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by the formula with tanh, as GPT-2 has it."""
    # Not a partial: a copy of a model would have another one, and what is known by identity would not be known.
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: Mapping[config.Activation, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "silu": F.silu,
    "tanh": F.tanh,
}


def lowered(function: Callable[[Tensor], Tensor]) -> fast.Activation:
    """The activation's name in a program.

    Raises:
        NotLowered: it is none of those above.
    """
    for name, activation in ACTIVATIONS.items():
        if activation is function:
            return name
    raise fast.NotLowered(f"activation {function}")
