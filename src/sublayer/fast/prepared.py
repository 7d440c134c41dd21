"""The float32 product with a weight that stays the same, by whichever layout is faster here for its number of rows.

Which one is measured (`sublayer.fast`). A layout is made when it is first needed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sublayer.fast.choices import FEW, SMALL, prepared_way
from sublayer.fast.facts import Way
from sublayer.fast.layouts import LAYOUTS, Function, one_dnn


def prepared(weight: Tensor, bias: Tensor | None) -> Function:
    """Return x W^T + b as a function of x [R, in], float32 on a CPU.

    Args:
        weight: [out, in], without a gradient; it must not be written to as long as the function is used.
        bias: [out], which is read anew at each call.
    """
    few, many = prepared_way(2, weight.numel()), prepared_way(FEW, weight.numel())
    # Of a large weight no copy is held for single rows alone.
    one = prepared_way(1, weight.numel()) if weight.numel() <= SMALL else few
    if one == few == many:
        return LAYOUTS[few](weight, bias)
    made: dict[Way, Function] = {}

    def apply(x: Tensor) -> Tensor:
        rows = x.shape[0]
        way = one if rows == 1 else few if rows < FEW else many
        function = made.get(way)
        if function is None:
            function = made[way] = LAYOUTS[way](weight, bias)
        return function(x)

    return apply


class PreparedLinear:
    """`prepared` for a weight that may change after all: what was prepared is then thrown away, and made anew."""

    def __init__(self) -> None:
        self._function: Function | None = None
        self._of: tuple[object, ...] = ()
        self._weight: Tensor | None = None

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return x W^T + b; no gradient is recorded.

        Shape: x [..., in], weight [out, in], bias [out], float32 on a CPU -> [..., out].
        """
        # The bias is known by its identity: what is written to it is read.
        of = (weight.data_ptr(), weight._version, id(bias), one_dnn())
        function = self._function
        if function is None or of != self._of:
            # Held, so that no other weight can come to have its address.
            self._weight = weight.detach()
            function = self._function = prepared(self._weight, bias)
            self._of = of
        return function(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)

    @staticmethod
    def fits(x: Tensor) -> bool:
        """Return whether a prepared product may stand for torch's own: a CPU, float32, no gradient."""
        return not torch.is_grad_enabled() and x.dtype == torch.float32 and x.device.type == "cpu"
