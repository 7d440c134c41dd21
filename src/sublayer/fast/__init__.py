"""What makes a part fast on this machine: what the processor is good at, measured, and what is chosen by it.

Here is the door that the parts of a model (`sublayer.nn`) and the losses come through. They say what is to be computed,
and get the numbers of the plain way, but for the last bits. What steps a whole decoder without its modules stands above
the models, in `fast/decoding/`.
"""

from __future__ import annotations

from sublayer.fast.choices import attention_by_products
from sublayer.fast.engine.program import Activation, Buffer, Layer, NotLowered, Positions, Program
from sublayer.fast.onednn_linear import fastest_products, linear
from sublayer.fast.prepared import PreparedLinear
from sublayer.fast.rms_norm import rms_norm

__all__ = [
    "Activation", "Buffer", "Layer", "NotLowered", "Positions", "PreparedLinear", "Program", "attention_by_products",
    "fastest_products", "linear", "rms_norm",
]  # fmt: skip
