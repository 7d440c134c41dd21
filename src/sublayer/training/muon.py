"""Muon: the momentum of a matrix, made orthogonal, is its update (Jordan et al. 2024).

    B <- m B + (1 - m) G            momentum; the update is that of Nesterov, (1 - m) G + m B
    U <- orthogonal(update)         about the factor U V^T of its singular value decomposition U S V^T
    W <- (1 - r w) W - 0.2 r sqrt(max(rows, columns)) U

with r the learning rate and w the weight decay. The last factor gives an update the root mean square that AdamW's has
(Liu et al. 2025, "Muon is Scalable for LLM Training"), so that one learning rate does for both. `torch.optim.Muon` with
`adjust_lr_fn="match_rms_adamw"` is the same, but multiplies in bfloat16 wherever it runs.

A matrix may hold several maps side by side: the fused projections of attention hold one for each head (W_i^Q, W_i^K and
W_i^V; W_i^O among the columns). Each map is made orthogonal by itself, as the paper's matrices are separate ones. It
trains as well (docs/results.md), and small maps cost a fraction of the products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

A, B, C = 3.4445, -4.7750, 2.0315
"""Of the polynomial a s + b s^3 + c s^5, which one iteration makes of every singular value s: steep at 0, and from
there on never far from 1. Five iterations take what is at least 0.0016 of the matrix' norm into [0.68, 1.21]."""

ITERATIONS = 5
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
    across: processes that make the matrices orthogonal together.
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
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "products": products})
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
        """One update of every parameter that has a gradient."""
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
        made = partial(_each_map, shape=shape, products=group["products"])
        across = self._across
        updates = made(updates) if across is None else across.shared_out(parameters, updates, made)
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - rate * group["weight_decay"])
            parameter.add_(update, alpha=-rate * size)

    def _momentum(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """The momentum after this gradient, as Nesterov looks ahead."""
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        buffer: Tensor = state["momentum_buffer"]
        buffer.lerp_(gradient, 1 - momentum)
        return gradient.lerp(buffer, momentum)

    def _map(self, parameter: nn.Parameter) -> tuple[int, int]:
        """The shape of the maps that a matrix holds; its own, where it is one map."""
        rows, columns = self._shape(parameter)
        return self._maps.get(parameter, (rows, columns))

    def _shape(self, parameter: nn.Parameter) -> torch.Size:
        return parameter.shape if self._across is None else self._across.shape(parameter)

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.param_groups for parameter in group["params"]]


def _each_map(matrices: list[Tensor], shape: tuple[int, int], products: torch.dtype) -> list[Tensor]:
    """`orthogonal` of every map of `shape` in matrices of one shape, put back where it stood."""
    (rows, columns), (map_rows, map_columns) = matrices[0].shape, shape
    if (rows, columns) == shape:
        return orthogonal(matrices, products)
    down, across = rows // map_rows, columns // map_columns
    apart = [m.view(down, map_rows, across, map_columns).transpose(1, 2).flatten(0, 1) for m in matrices]
    made = torch.stack(orthogonal([each for maps in apart for each in maps], products))
    together = made.view(-1, down, across, map_rows, map_columns).transpose(2, 3).reshape(-1, rows, columns)
    return list(together)


def orthogonal(matrices: list[Tensor], products: torch.dtype = torch.float32) -> list[Tensor]:
    """Return for each matrix U S V^T nearly U V^T: what is not near 0 of its singular values becomes about 1.

    Args:
        matrices: of one shape, dtype and device. products: the type they are multiplied in; float64 stays float64.

    Returns:
        As many, of that shape, in the type of the products. Of singular values that are at least 0.0016 of the matrix'
        Frobenius norm none is left outside [0.68, 1.21] (and what rounding adds); smaller ones grow up to 485 times.
    """
    dtype = torch.float64 if matrices[0].dtype == torch.float64 else products
    done: list[Tensor] = []
    for piece in _pieces(matrices):
        stack = piece[0][None] if len(piece) == 1 else torch.stack(piece)
        done += list(_iterated(stack.to(dtype)))
    return done


def _pieces(matrices: list[Tensor]) -> list[list[Tensor]]:
    """What is multiplied at once: all on an accelerator; on a CPU so much that it stays in the cache.

    On two cores 72 maps of 64 x 256 take 38 ms one by one and 16 ms in stacks of 32; large matrices take the same in
    stacks of two as alone.
    """
    size = len(matrices) if matrices[0].device.type != "cpu" else max(1, CACHED // matrices[0].numel())
    return [matrices[start : start + size] for start in range(0, len(matrices), size)]


CACHED = 2**19
"""Numbers in the matrices that are multiplied at once on a CPU."""


def _iterated(x: Tensor) -> Tensor:
    """The iterations on matrices [count, rows, columns].

    Where one side is much longer they are done on what only has the shorter: an iteration multiplies X from the left by
    P = a + b G + c G G, a polynomial in G = X X^T, so that the next G is P G P, and X is multiplied once, by the
    product of all P. In half precision the rounding of G would grow too much.
    """
    short, long = sorted(x.shape[-2:])
    exact = x.dtype in (torch.float32, torch.float64)
    if exact and 2 * long > 3 * short:
        return _on_grams(x)
    return _on_matrices(x) if x.shape[-2] <= x.shape[-1] else _on_matrices(x.mT).mT


def _on_matrices(x: Tensor) -> Tensor:
    norms = cast(Tensor, x.flatten(1).norm(dim=1))[:, None, None]  # pyright: ignore[reportUnknownMemberType]
    x = x / norms.clamp(min=SMALLEST)
    for _ in range(ITERATIONS):
        gram = torch.bmm(x, x.mT)
        steps = torch.baddbmm(gram, gram, gram, beta=B, alpha=C)
        x = torch.baddbmm(x, steps, x, beta=A)
    return x


def _on_grams(x: Tensor) -> Tensor:
    tall = x.shape[-2] > x.shape[-1]
    gram = torch.bmm(x.mT, x) if tall else torch.bmm(x, x.mT)
    # The trace is the square of the norm, which is thus found and divided by without a pass over X.
    squares = gram.diagonal(dim1=1, dim2=2).sum(dim=1).clamp(min=SMALLEST**2)[:, None, None]
    gram = gram / squares
    all_steps = torch.eye(gram.shape[-1], dtype=x.dtype, device=x.device).expand_as(gram)
    for iteration in range(ITERATIONS):
        steps = torch.baddbmm(gram, gram, gram, beta=B, alpha=C)
        all_steps = torch.baddbmm(all_steps, steps, all_steps, beta=A) if iteration else steps + A * all_steps
        if iteration < ITERATIONS - 1:
            once = torch.baddbmm(gram, gram, steps, beta=A)
            gram = torch.baddbmm(once, once, steps, beta=A)
    all_steps = all_steps / squares.sqrt()
    return torch.bmm(x, all_steps) if tall else torch.bmm(all_steps, x)
