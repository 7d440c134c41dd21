"""The feed-forward sub-layer: the same two-layer network at every position (section 3.3).

Dimensions: D width of the residual stream, F width of the hidden layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor
from torch.nn import functional as F

from sublayer import config, fast
from sublayer.nn.activation import ACTIVATIONS, lowered
from sublayer.nn.experts import MixtureOfExperts
from sublayer.nn.initial import glorot
from sublayer.nn.linear import Linear
from sublayer.nn.part import Part, TensorPlan


class PositionWise(Part):
    """Two linear maps with an activation between them ("Attention Is All You Need", equation 2).

        FFN(x) = max(0, x W1 + b1) W2 + b2

    where max(0, .) is the activation, if another is not chosen. W1 is `up`, W2 is `down`. Dropout, if any, acts on
    the activations.

    Shape:
        x: [..., D], floating; the result: the same.

    Args:
        c: the configuration; F = c.hidden.
        dim: D.
    """

    def __init__(self, c: config.PositionWise | config.Squared, dim: int) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[c.activation]
        self.up = Linear(dim, c.hidden, bias=c.bias)
        self.down = Linear(c.hidden, dim, bias=c.bias)
        self.dropout = c.dropout

    def reset_parameters(self) -> None:
        glorot(self.up)
        glorot(self.down)

    def stream_axes(self) -> Mapping[str, int]:
        return {"up.weight": 1, "down.weight": 0, "down.bias": 0}

    def stream_writers(self) -> Sequence[Tensor]:
        return [self.down.weight]

    def tensor_plan(self) -> TensorPlan:
        """By columns of the hidden layer."""
        return TensorPlan(colwise={"up": (self.up.out_features,)}, rowwise=["down"])

    def hidden_maps(self, neurons: int) -> Iterator[tuple[Tensor, tuple[int, int]]]:
        """Yield each matrix, and the shape of the maps that it holds where `neurons` of the hidden layer are one."""
        yield self.up.weight, (neurons, self.up.in_features)
        yield self.down.weight, (self.down.out_features, neurons)

    def hidden(self, x: Tensor) -> Tensor:
        """Shape: [..., D] -> [..., F]."""
        return self.activation(self.up(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.dropout(self.hidden(x), self.dropout, self.training))

    def lower(self, program: fast.Program, x: fast.Buffer) -> fast.Buffer:
        return program.lower(self.down, program.lower(self.up, x, lowered(self.activation)))


class Squared(PositionWise):
    """`PositionWise` with what the activation gives squared (Primer, So et al. 2021, https://arxiv.org/abs/2109.08668).

        FFN(x) = max(0, x W1) ** 2 W2

    where max(0, .) is the activation, if another is not chosen (section 3; there without biases). Dropout, if any, acts
    on the squares.

    Shape and arguments: as of `PositionWise`.
    """

    def hidden(self, x: Tensor) -> Tensor:
        return super().hidden(x).square()

    def lower(self, program: fast.Program, x: fast.Buffer) -> fast.Buffer:
        return program.lower(self.down, program.lower(self.up, x, lowered(self.activation), True))


class Gated(Part):
    """One linear map gated by the activation of another (Shazeer 2020, https://arxiv.org/abs/2002.05202).

        FFN(x) = (act(x Wg) * (x Wu)) Wd

    SwiGLU with silu, GEGLU with gelu (equation 6, there without biases). Wg and Wu are one weight, `gate_up`
    [2F, D]: rows 0 … F - 1 are the gate, rows F … 2F - 1 the up projection, so that x is read once. Dropout, if any,
    acts on the product.

    Shape:
        x: [..., D], floating; the result: the same.

    Args:
        c: the configuration; F = c.hidden.
        dim: D.
    """

    def __init__(self, c: config.Gated, dim: int) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[c.activation]
        self.gate_up = Linear(dim, 2 * c.hidden, bias=c.bias)
        self.down = Linear(c.hidden, dim, bias=c.bias)
        self.dropout = c.dropout

    def reset_parameters(self) -> None:
        glorot(self.gate_up, self.down.in_features)
        glorot(self.down)

    def stream_axes(self) -> Mapping[str, int]:
        return {"gate_up.weight": 1, "down.weight": 0, "down.bias": 0}

    def stream_writers(self) -> Sequence[Tensor]:
        return [self.down.weight]

    def tensor_plan(self) -> TensorPlan:
        """By columns of the hidden layer, of the gate and of what it gates."""
        return TensorPlan(colwise={"gate_up": (self.down.in_features,) * 2}, rowwise=["down"])

    def hidden_maps(self, neurons: int) -> Iterator[tuple[Tensor, tuple[int, int]]]:
        """As `PositionWise.hidden_maps`; gates and what they gate are maps of their own."""
        yield self.gate_up.weight, (neurons, self.gate_up.in_features)
        yield self.down.weight, (self.down.out_features, neurons)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.dropout(self.activation(gate) * up, self.dropout, self.training))

    def lower(self, program: fast.Program, x: fast.Buffer) -> fast.Buffer:
        return program.lower(self.down, program.gate(program.lower(self.gate_up, x), lowered(self.activation)))


def build_feed_forward(c: config.FeedForward, dim: int) -> PositionWise | Gated | MixtureOfExperts:
    """The feed-forward sub-layer that `c` describes, in a model of width `dim`."""
    match c:
        case config.PositionWise():
            return PositionWise(c, dim)
        case config.Squared():
            return Squared(c, dim)
        case config.Gated():
            return Gated(c, dim)
        case config.MixtureOfExperts():
            return MixtureOfExperts(c, dim)
