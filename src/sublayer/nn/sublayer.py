"""The idea that ties every Transformer together: a residual stream, and sub-layers that read from and write to it.

post              norm(x + f(x))               the paper's (section 3.1)
pre               x + f(norm(x))               stable without care over the warm-up (Xiong et al. 2020)
sandwich          x + norm(f(norm(x)))         a norm on either side of f (Ding et al. 2021)
output            x + norm(f(x))               what is written is normalized (Liu et al. 2022; OLMo-2)
parallel          x + f(norm(x)) + g(norm'(x)) both sub-layers read the same stream (GPT-NeoX)
parallel-shared   x + f(norm(x)) + g(norm(x))  through one norm (GPT-J), which the block then has
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from sublayer import config, fast
from sublayer.nn.normalization import build_norm
from sublayer.nn.tap import Tap


class SubLayer(nn.Module):
    """Joins a function to the residual stream: outer(x + dropout(after(f(before(x))))).

    Each of the three norms is there or not; which are is all that the wiring says. The tap `output` sees what is
    about to be added to the stream.

    Args:
        reads_norm: False where this sub-layer reads the stream as it is though its wiring has a norm before.
    """

    def __init__(self, c: config.Block, dim: int, *, reads_norm: bool = True) -> None:
        super().__init__()
        before = reads_norm and c.wiring in ("pre", "sandwich", "parallel")
        self.before = build_norm(c.norm, dim) if before else None
        self.after = build_norm(c.norm, dim) if c.wiring in ("sandwich", "output") else None
        self.outer = build_norm(c.norm, dim) if c.wiring == "post" else None
        self.dropout = c.dropout
        self.output = Tap()

    def forward(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Shape: x [B, S, D] -> [B, S, D]; `function` maps [B, S, D] to [B, S, D]."""
        x = x + self.written(x, function)
        return x if self.outer is None else self.outer(x)

    def written(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """What is to be added to the stream x. Shape: as in `forward`."""
        written = function(x if self.before is None else self.before(x))
        if self.after is not None:
            written = self.after(written)
        written = self.output(written)
        if self.dropout and self.training:
            written = F.dropout(written, self.dropout)
        return written

    def lower(
        self, program: fast.Program, x: fast.Buffer, function: Callable[[fast.Buffer], fast.Buffer]
    ) -> fast.Buffer:
        """`forward`, on the stream x itself."""
        program.add(x, self.lower_written(program, x, function))
        return x if self.outer is None else program.lower(self.outer, x, 1, True)

    def lower_written(
        self, program: fast.Program, x: fast.Buffer, function: Callable[[fast.Buffer], fast.Buffer]
    ) -> fast.Buffer:
        """`written`."""
        found = function(x if self.before is None else program.lower(self.before, x))
        return found if self.after is None else program.lower(self.after, found)
