"""What makes a part fast on this machine: what the processor is good at, measured, and what is chosen by it.

Here is the door that the parts of a model (`sublayer.nn`) and the losses come through. They say what is to be computed,
and get the numbers of the plain way, but for the last bits. What steps a whole decoder without its modules stands above
the models, in `fast/decoding/`. The engine (`fast/engine/`) runs without torch, so the door is opened when it is first
used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sublayer.fast.choices import attention_by_products
    from sublayer.fast.compiling import torch_compile
    from sublayer.fast.engine.program import Activation, Buffer, Layer, NotLowered, Positions, Program
    from sublayer.fast.onednn_linear import fastest_products, linear
    from sublayer.fast.prepared import PreparedLinear
    from sublayer.fast.root_mean_square import rms_norm

__all__ = [
    "Activation", "Buffer", "Layer", "NotLowered", "Positions", "PreparedLinear", "Program", "attention_by_products",
    "fastest_products", "linear", "rms_norm", "torch_compile",
]  # fmt: skip

_HOMES = {
    "attention_by_products": "choices",
    **dict.fromkeys(("Activation", "Buffer", "Layer", "NotLowered", "Positions", "Program"), "engine.program"),
    **dict.fromkeys(("fastest_products", "linear"), "onednn_linear"),
    "PreparedLinear": "prepared",
    "rms_norm": "root_mean_square",
    "torch_compile": "compiling",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sublayer.fast' has no attribute '{name}'")
    from importlib import import_module

    found = getattr(import_module(f"sublayer.fast.{_HOMES[name]}"), name)
    globals()[name] = found
    return found
