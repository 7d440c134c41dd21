"""The linear map of every projection, and a faster way to compute it when a model is only used.

    y = x W^T + b

Once `prepare` has been called, and while no gradient is recorded, a float32 product on a CPU uses a copy of the weight
in whichever layout is faster here (`sublayer.fast`): the one of oneDNN, or transposed. The numbers differ in the last
bits only.

The copies are made when first needed and thrown away when the weight has changed since.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sublayer.fast.choices import prepared_way
from sublayer.fast.products import ONE_DNN
from sublayer.nn.product import linear


@dataclass
class _Prepared:
    """The weight in other layouts, and by what to recognise that it is still the same weight."""

    address: int
    version: int
    transposed: Tensor | None = None
    packed: Tensor | None = None


class Linear(nn.Linear):
    """`torch.nn.Linear`, with prepared weights where they help."""

    _prepared: _Prepared | None = None

    def prepare(self) -> None:
        """Use prepared weights from now on, where that is possible: a CPU, float32, no gradient."""
        self._prepared = self._anew()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name in torch)
        """Shape: input [..., in] -> [..., out]."""
        x, held = input, self._prepared
        if held is None or torch.is_grad_enabled() or x.dtype != torch.float32 or x.device.type != "cpu":
            return linear(x, self.weight, self.bias)
        if held.address != self.weight.data_ptr() or held.version != self.weight._version:
            held = self._prepared = self._anew()
        rows = x.reshape(-1, x.shape[-1])
        if not one_dnn() or prepared_way(len(rows), self.weight.numel()) == "transposed":
            if held.transposed is None:
                held.transposed = self.weight.detach().t().contiguous()
            bias = self.bias
            y = rows.mm(held.transposed) if bias is None else torch.addmm(bias, rows, held.transposed)  # pyright: ignore
        else:
            if held.packed is None:
                held.packed = pack(self.weight.detach())
            y: Tensor = product(rows, held.packed, self.bias, "none", [], "")
        return y.view(*x.shape[:-1], -1)

    def _anew(self) -> _Prepared:
        return _Prepared(self.weight.data_ptr(), self.weight._version)


def prepare(model: nn.Module) -> None:
    """Prepare every linear map of a model that will only be used."""
    for module in model.modules():
        if isinstance(module, Linear):
            module.prepare()


def one_dnn() -> bool:
    """Whether this build of torch has oneDNN's products, and they are not switched off."""
    return ONE_DNN is not None and bool(torch.backends.mkldnn.enabled)


def pack(weight: Tensor) -> Tensor:
    """The weight [out, in] in oneDNN's own layout, for `product`."""
    # The layout is chosen for so many rows at a time; it is right, and near the best, for any number.
    packed: Any = torch.ops.mkldnn._reorder_linear_weight(weight, 32)
    return packed


product: Any = torch.ops.mkldnn._linear_pointwise if ONE_DNN is not None else None
"""(x [R, in], packed weight, bias or None, activation, [], its algorithm) -> activation(x W^T + b) [R, out]."""
