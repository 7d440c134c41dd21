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

    Each of the three norms is there or not; which are is all that the norm placement says. The tap `output` sees what
    is about to be added to the stream.

    Args:
        reads_norm: False where this sub-layer reads the stream as it is though its norm placement has a norm before.
    """

    def __init__(self, c: config.Block, dim: int, *, reads_norm: bool = True) -> None:
        super().__init__()
        before = reads_norm and c.norm_placement in ("pre", "sandwich", "parallel")
        self.before = build_norm(c.norm, dim) if before else None
        self.after = build_norm(c.norm, dim) if c.norm_placement in ("sandwich", "output") else None
        self.outer = build_norm(c.norm, dim) if c.norm_placement == "post" else None
        self.dropout = c.dropout
        self.output = Tap()

    def forward(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Shape: x [B, S, D] -> [B, S, D]; `function` maps [B, S, D] to [B, S, D]."""
        x = x + self.residual_branch(x, function)
        return x if self.outer is None else self.outer(x)

    def residual_branch(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """The residual branch: what is to be added to the stream x. Shape: as in `forward`."""
        branch = function(x if self.before is None else self.before(x))
        if self.after is not None:
            branch = self.after(branch)
        return F.dropout(self.output(branch), self.dropout, self.training)

    def lower(
        self, program: fast.Program, x: fast.Buffer, function: Callable[[fast.Buffer], fast.Buffer]
    ) -> fast.Buffer:
        """`forward`, on the stream x itself."""
        program.add(x, self.lower_branch(program, x, function))
        return x if self.outer is None else program.lower(self.outer, x, 1, True)

    def lower_branch(
        self, program: fast.Program, x: fast.Buffer, function: Callable[[fast.Buffer], fast.Buffer]
    ) -> fast.Buffer:
        """`residual_branch`."""
        found = function(x if self.before is None else program.lower(self.before, x))
        return found if self.after is None else program.lower(self.after, found)
