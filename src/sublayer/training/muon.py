"""Muon: the momentum of a matrix, made orthogonal, is its update (Jordan et al. 2024).

    B <- m B + (1 - m) G            momentum; the update is that of Nesterov, (1 - m) G + m B
    U <- orthogonal(update)         about the factor U V^T of its singular value decomposition U S V^T
    W <- (1 - r w) W - 0.2 r sqrt(max(rows, columns)) U

with r the learning rate and w the weight decay. `orthogonal` is a few iterations of a polynomial that moves the
singular values towards 1 (Newton and Schulz's way). The last factor gives an update the root mean square that AdamW's
has (Liu et al. 2025, "Muon is Scalable for LLM Training"), so that one learning rate does for both. `torch.optim.Muon`
with `adjust_lr_fn="match_rms_adamw"` is the same with the polynomials `JORDAN`, in bfloat16 wherever it runs.

A matrix may hold several maps side by side: the fused projections of attention hold one for each head (W_i^Q, W_i^K and
W_i^V; W_i^O among the columns). Each map is made orthogonal by itself, as the paper's matrices are separate ones. It
trains as well (docs/results.md), and small maps cost a fraction of the products. So may the matrices of a feed-forward
network, where a block of hidden neurons is a map: a network of 1,024 is the sum of thirty-two of 32 (block-wise, as in
Khaled et al. 2025, "MuonBP").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Polynomials = Sequence[tuple[float, float, float]]
"""For each iteration a, b, c of the polynomial a s + b s^3 + c s^5 that it makes of every singular value s."""

JORDAN: Polynomials = ((3.4445, -4.7750, 2.0315),) * 5
"""Jordan's, which `torch.optim.Muon` has: steep at 0, and from there on never far from 1. What is at least 0.0016 of
the matrix' norm ends in [0.68, 1.21]."""

POLAR_EXPRESS: Polynomials = (
    (8.3007, -24.0375, 17.4661),
    (4.0059, -2.9253, 0.5424),
    (3.4840, -2.5614, 0.5024),
    (2.5153, -1.8615, 0.4425),
)
"""Each the best that there is for where the one before leaves the values (Polar Express, Amsel et al. 2025,
https://arxiv.org/abs/2505.16932, algorithm 1), so that four do. What is at least 0.003 of the norm ends in
[0.79, 1.21]. All but the last are made for values up to 1.01, which rounding may reach."""

POLYNOMIALS: Mapping[str, Polynomials] = {"jordan": JORDAN, "polar-express": POLAR_EXPRESS}
"""By their name in a recipe."""

EXACT = (torch.float32, torch.float64)
SMALLEST = 1e-7
"""Norm below which a matrix is not brought to 1: of a matrix of zeros nothing can be made."""


class Across(Protocol):
    """Several processes, each of which holds a part of every matrix, or all of it."""

    def shape(self, parameter: nn.Parameter) -> torch.Size:
        """That of the whole matrix."""
        ...

    def shared_out(
        self, parameters: list[nn.Parameter], parts: list[Tensor], work: Callable[[list[Tensor]], list[Tensor]]
    ) -> list[Tensor]:
        """`work` on whole matrices of one shape, each done by one process; what this one holds of the results.

        Args:
            parts: what this process holds of the matrices, one for each of the parameters.
        """
        ...


class Muon(Optimizer):
    """Muon over matrices; every parameter has two dimensions.

    lr, weight_decay: as above; the momentum's decay is `momentum`. products: the type that float32 matrices are
    multiplied in; float64 stays float64. maps: for a matrix that holds several maps, their shape (rows, columns).
    across: processes that make the matrices orthogonal together. polynomials: those of the iterations.
    State: "momentum_buffer", shaped like the parameter.

    Raises:
        ValueError: a parameter has not two dimensions, or is not divided evenly into its maps.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        products: torch.dtype = torch.float32,
        maps: Mapping[Tensor, tuple[int, int]] | None = None,
        across: Across | None = None,
        polynomials: Polynomials = JORDAN,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "products": products})
        self._polynomials = polynomials
        self._maps = dict(maps or {})
        self._across = across
        for parameter in self._parameters():
            if parameter.dim() != 2:
                raise ValueError(f"Muon updates matrices, and a parameter has the shape {tuple(parameter.shape)}")
            (rows, columns), shape = self._map(parameter), self._shape(parameter)
            if shape[0] % rows or shape[1] % columns:
                raise ValueError(f"a matrix of {tuple(shape)} does not hold maps of ({rows}, {columns})")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter that has a gradient, which is used up: the update is written over it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[Any, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    key = (parameter.shape, self._map(parameter), parameter.dtype, parameter.device)
                    alike.setdefault(key, []).append(parameter)
            for parameters in alike.values():
                self._update(parameters, group)
        return loss

    def _update(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        """One update of parameters that have one shape, and maps of one shape."""
        rate, momentum = group["lr"], group["momentum"]
        shape = self._map(parameters[0])
        updates = [self._momentum(parameter, momentum) for parameter in parameters]
        size = 0.2 * math.sqrt(max(shape))
        made = partial(orthogonal, products=group["products"], polynomials=self._polynomials, shape=shape)
        across = self._across
        updates = made(updates) if across is None else across.shared_out(parameters, updates, made)
        for parameter, update in zip(parameters, updates, strict=True):
            if group["weight_decay"]:
                parameter.mul_(1 - rate * group["weight_decay"])
            parameter.add_(update, alpha=-rate * size)

    def _momentum(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """The momentum after this gradient, as Nesterov looks ahead; in the gradient's place."""
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        buffer: Tensor = state["momentum_buffer"]
        buffer.lerp_(gradient, 1 - momentum)
        return gradient.lerp_(buffer, momentum)

    def _map(self, parameter: nn.Parameter) -> tuple[int, int]:
        """The shape of the maps that a matrix holds; its own, where it is one map."""
        rows, columns = self._shape(parameter)
        return self._maps.get(parameter, (rows, columns))

    def _shape(self, parameter: nn.Parameter) -> torch.Size:
        return parameter.shape if self._across is None else self._across.shape(parameter)

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.param_groups for parameter in group["params"]]


def orthogonal(
    matrices: list[Tensor],
    products: torch.dtype = torch.float32,
    polynomials: Polynomials = JORDAN,
    shape: tuple[int, int] | None = None,
) -> list[Tensor]:
    """Return for each matrix U S V^T nearly U V^T: what is not near 0 of its singular values becomes about 1.

    Args:
        matrices: of one shape, dtype and device. products: the type they are multiplied in; float64 stays float64.
        shape: that of the maps which a matrix holds, each of which is made orthogonal by itself; None if it is one map.

    Returns:
        As many, of that shape, in the type of the products. How near to 1 the singular values are is said where the
        polynomials are; those that are smaller in proportion grow by the product of all a at most.
    """
    first = matrices[0]
    (rows, columns), (map_rows, map_columns) = first.shape, shape or first.shape
    down, across = rows // map_rows, columns // map_columns
    dtype = torch.float64 if first.dtype == torch.float64 else products
    made = first.new_empty(len(matrices), down, across, map_rows, map_columns, dtype=dtype)
    # One copy lays the maps one after another, in the type of the products: memory's time is a third of all here. Of
    # maps side by side the rows are short; to convert them there takes up to five times as long as to do it before.
    for maps, matrix in zip(made, matrices, strict=True):
        typed = matrix.to(dtype) if across > 1 else matrix
        maps.copy_(typed.view(down, map_rows, across, map_columns).transpose(1, 2))
    for piece in _pieces(made.flatten(0, 2)):
        piece.copy_(_iterated(piece, polynomials))
    return [maps.transpose(1, 2).reshape(rows, columns) for maps in made]


def _pieces(maps: Tensor) -> tuple[Tensor, ...]:
    """What is multiplied at once of maps [count, rows, columns]: all on an accelerator; on a CPU so much that it stays
    in the cache.

    On two cores 72 maps of 64 x 256 take 38 ms one by one and 16 ms in stacks of 32 or 64; large matrices take the same
    in stacks of two as alone.
    """
    size = len(maps) if maps.device.type != "cpu" else max(1, CACHED // maps[0].numel())
    return torch.split(maps, size)


CACHED = 2**20
"""Numbers in the matrices that are multiplied at once on a CPU."""


def _iterated(x: Tensor, polynomials: Polynomials) -> Tensor:
    """The iterations on matrices [count, rows, columns], which may be overwritten.

    Where one side is much longer they are done on what only has the shorter: an iteration multiplies X from the left by
    P = a + b G + c G G, a polynomial in G = X X^T, so that the next G is P G P, and X is multiplied once, by the
    product of all P. In half precision the rounding of G would grow too much.
    """
    short, long = sorted(x.shape[-2:])
    on_grams = x.dtype in EXACT and 2 * long > 3 * short
    return (_on_grams if on_grams else _on_matrices)(x, polynomials)


def _on_matrices(x: Tensor, polynomials: Polynomials) -> Tensor:
    norms = cast(Tensor, x.flatten(1).norm(dim=1))[:, None, None]  # pyright: ignore[reportUnknownMemberType]
    x.div_(norms.clamp(min=SMALLEST))
    tall = x.shape[-2] > x.shape[-1]
    other = torch.empty_like(x)
    for a, b, c in polynomials:
        gram = _symmetric(x.mT, x) if tall else _symmetric(x, x.mT)
        steps = _symmetric(gram, gram, gram, beta=b, alpha=c)
        # From the right where X is tall: on its transpose from the left it takes twice as long in bfloat16.
        torch.baddbmm(x, *((x, steps) if tall else (steps, x)), beta=a, out=other)
        x, other = other, x
    return x


def _on_grams(x: Tensor, polynomials: Polynomials) -> Tensor:
    tall = x.shape[-2] > x.shape[-1]
    gram = _symmetric(x.mT, x) if tall else _symmetric(x, x.mT)
    # The trace is the square of the norm, which is thus found and divided by without a pass over X.
    squares = gram.diagonal(dim1=1, dim2=2).sum(dim=1).clamp(min=SMALLEST**2)[:, None, None]
    gram = gram / squares
    all_steps = torch.eye(gram.shape[-1], dtype=x.dtype, device=x.device).expand_as(gram)
    for iteration, (a, b, c) in enumerate(polynomials, start=1):
        steps = _symmetric(gram, gram, gram, beta=b, alpha=c)
        all_steps = _symmetric(all_steps, steps, all_steps, beta=a) if iteration > 1 else steps + a * all_steps
        if iteration < len(polynomials):
            once = _symmetric(gram, steps, gram, beta=a)
            gram = _symmetric(once, steps, once, beta=a)
    all_steps = all_steps / squares.sqrt()
    return torch.bmm(x, all_steps) if tall else torch.bmm(all_steps, x)


def _symmetric(x: Tensor, y: Tensor, added: Tensor | None = None, *, beta: float = 1.0, alpha: float = 1.0) -> Tensor:
    """Return alpha x y + beta added where that is symmetric, as products of X with its transpose and of polynomials in
    one matrix are: what is above the diagonal is multiplied, in strips of rows, and copied below it.

    Shape: x [N, S, K], y [N, K, S], added [N, S, S] -> [N, S, S].
    """
    size = x.shape[-2]
    if x.device.type != "cpu" or x.dtype not in EXACT or size < 2 * STRIP:
        return torch.bmm(x, y) if added is None else torch.baddbmm(added, x, y, beta=beta, alpha=alpha)
    found = x.new_empty(x.shape[0], size, size)
    for begin in range(0, size, STRIP):
        rows, rest, below = slice(begin, begin + STRIP), slice(begin, None), slice(begin + STRIP, None)
        out = found[:, rows, rest]
        if added is None:
            torch.bmm(x[:, rows], y[:, :, rest], out=out)
        else:
            torch.baddbmm(added[:, rows, rest], x[:, rows], y[:, :, rest], beta=beta, alpha=alpha, out=out)
        found[:, below, rows] = found[:, rows, below].mT
    return found


STRIP = 64
"""Rows of a strip: of 256 rows five eighths are multiplied. In half precision strips take longer than the whole."""
