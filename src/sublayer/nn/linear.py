"""The linear map of every projection.

    y = x W^T + b

It is computed by whichever library is faster here (`sublayer.fast`). Once `prepare` has been called, and while no
gradient is recorded, a float32 product on a CPU uses a copy of the weight in the layout that is fastest to read. The
numbers differ in the last bits only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from sublayer import fast

if TYPE_CHECKING:
    from sublayer.nn.tensor_parallel import VocabularyShare


class Linear(nn.Linear):
    """`torch.nn.Linear`, by the faster way, and with a prepared weight where that helps."""

    _prepared: fast.PreparedLinear | None = None
    vocabulary: VocabularyShare | None = None
    """Of a projection to the vocabulary: the tokens that this process has, where several share it."""

    def prepare(self) -> None:
        """Use a prepared weight from now on, where that is possible: a CPU, float32, no gradient."""
        self._prepared = fast.PreparedLinear()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name in torch)
        """Shape: input [..., in] -> [..., out]."""
        prepared = self._prepared
        if prepared is not None and prepared.fits(input):
            return prepared(input, self.weight, self.bias)
        return fast.linear(input, self.weight, self.bias)

    def lower(
        self, program: fast.Program, x: fast.Buffer, activation: fast.Activation = "none", squared: bool = False
    ) -> fast.Buffer:
        """activation(x W^T + b), squared or not, in one operation."""
        return program.linear(x, self.weight, self.bias, activation, squared=squared)


def prepare(model: nn.Module) -> None:
    """Prepare every linear map of a model that will only be used."""
    for module in model.modules():
        if isinstance(module, Linear):
            module.prepare()
