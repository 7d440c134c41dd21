"""A mixture of experts: many feed-forward networks, of which each token uses a few (Shazeer et al. 2017).

Dimensions: N tokens, D width of the residual stream, E experts, K of them active for each token, F hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sublayer import config, fast
from sublayer.nn.activation import ACTIVATIONS, lowered
from sublayer.nn.initial import glorot, glorot_std
from sublayer.nn.linear import Linear
from sublayer.nn.part import Part


class MixtureOfExperts(Part):
    """The K best of E gated networks, weighted by the router (Jiang et al. 2024, https://arxiv.org/abs/2401.04088).

        y = sum over e in TopK(p) of p_e FFN_e(x),   p = softmax(x W_r)

    with the p of the chosen made to sum to 1 where `c.normalize` says so. FFN_e is (act(x Wg) * (x Wu)) Wd. Each
    expert sees only its own tokens, so no token depends on which others are in its batch.

    Shape:
        x: [..., D], floating; the result: the same. `gate_up` [E, 2F, D], `down` [E, D, F]: each expert's matrices as
        in `feed_forward.Gated`.

    Args:
        c: the configuration; E = c.experts, K = c.active, F = c.hidden.
        dim: D.
    """

    def __init__(self, c: config.MixtureOfExperts, dim: int) -> None:
        super().__init__()
        self.active, self.normalize = c.active, c.normalize
        self.activation = ACTIVATIONS[c.activation]
        self.router = Linear(dim, c.experts, bias=False)
        self.gate_up = nn.Parameter(torch.empty(c.experts, 2 * c.hidden, dim))
        self.down = nn.Parameter(torch.empty(c.experts, dim, c.hidden))
        for matrices in (self.gate_up, self.down):
            nn.init.normal_(matrices, std=matrices.shape[-1] ** -0.5)

    def reset_parameters(self) -> None:
        glorot(self.router)
        for matrices in (self.gate_up, self.down):
            nn.init.normal_(matrices, std=glorot_std(*self.down.shape[1:]))

    def stream_axes(self) -> Mapping[str, int]:
        return {"router.weight": 1, "gate_up": 2, "down": 1}

    def stream_writers(self) -> Sequence[Tensor]:
        return [self.down]

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, -2)

        def expert(number: int, tokens: Tensor) -> Tensor:
            gate, up = self.linear("gate_up", number, tokens).chunk(2, dim=-1)
            return self.linear("down", number, self.activation(gate) * up)

        return mixture(flat, self.router(flat), expert, active=self.active, normalize=self.normalize).view(x.shape)

    def lower(self, program: fast.Program, x: fast.Buffer) -> fast.Buffer:
        experts = list(zip(self.gate_up, self.down, strict=True))
        router = self.router.weight
        activation = lowered(self.activation)
        return program.mix(x, router, experts, activation, active=self.active, normalize=self.normalize)

    def linear(self, matrices: str, number: int, tokens: Tensor) -> Tensor:
        """One expert's product with its own of the `matrices` "gate_up" or "down". Shape: [n, in] -> [n, out]."""
        return F.linear(tokens, getattr(self, matrices)[number])


def mixture(
    x: Tensor, scores: Tensor, expert: Callable[[int, Tensor], Tensor], *, active: int, normalize: bool
) -> Tensor:
    """What the chosen experts write, weighted.

    Args:
        scores: the router's. expert: its number, and tokens [n, D] -> [n, D].

    Shape: x [N, D], scores [N, E] -> [N, D].
    """
    # The router decides in float32 at least: a rounded probability would send a token elsewhere.
    wide = torch.promote_types(x.dtype, torch.float32)
    weight_nk, expert_nk = scores.softmax(dim=-1, dtype=wide).topk(active, dim=-1)
    if normalize:
        weight_nk = weight_nk / weight_nk.sum(dim=-1, keepdim=True)
    weight_nk = weight_nk.to(x.dtype)
    mixed = torch.zeros_like(x)
    for number in cast("list[int]", expert_nk.unique().tolist()):
        token, place = cast("tuple[Tensor, Tensor]", (expert_nk == number).nonzero(as_tuple=True))
        written = expert(number, x[token]) * weight_nk[token, place].unsqueeze(-1)
        mixed = mixed.index_add(0, token, written.to(mixed.dtype))
    return mixed
