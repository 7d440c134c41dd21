"""The feed-forward sub-layer (section 3.3), and the activations that it and others have.

D width of the stream, F hidden width, E experts, K of them active.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from sublayer.config.part import Experts, Part, Probability, Size

__all__ = ["Activation", "FeedForward", "Gated", "MixtureOfExperts", "PositionWise", "Squared"]

Activation = Literal["relu", "gelu", "gelu_tanh", "silu", "tanh"]


class _Dense(Part):
    """Every token goes through the same matrices.

    maps: how many there are; all but the last lead to the hidden layer.
    """

    maps: ClassVar[int]

    if TYPE_CHECKING:  # Each kind declares its fields itself, so that a tree is written in their order.
        hidden: Size
        bias: bool
        dropout: Probability

    def matrices(self, dim: int) -> int:
        """Numbers in the matrices of two dimensions, which are those that Muon takes."""
        return self.maps * dim * self.hidden

    def parameters(self, dim: int) -> int:
        return self.matrices(dim) + self.bias * ((self.maps - 1) * self.hidden + dim)

    def active_parameters(self, dim: int) -> int:
        """Numbers that one token meets."""
        return self.parameters(dim)

    def flops(self, dim: int) -> int:
        """Operations a token in the matrix products."""
        return 2 * self.matrices(dim)

    def kept(self, dim: int, tensor: int = 1) -> int:
        """Numbers kept a token for the backward pass. tensor: how many processes share the hidden layer."""
        return dim + (self.kept_hidden() + (2 if self.dropout else 0)) * self.hidden // tensor

    def found(self, dim: int, tensor: int = 1) -> int:
        """Numbers a token that the products make."""
        return dim + (self.maps - 1) * self.hidden // tensor

    def kept_hidden(self) -> int:
        """Of those, in widths of the hidden layer, what there is without dropout."""
        raise NotImplementedError(type(self).__name__)


class PositionWise(_Dense):
    """max(0, x W1 + b1) W2 + b2, or with another activation (section 3.3, equation 2)."""

    maps: ClassVar = 2
    type: Literal["position-wise"] = "position-wise"
    hidden: Size
    activation: Activation = "relu"
    bias: bool = True
    dropout: Probability = 0.0

    def kept_hidden(self) -> int:
        # ReLU's gradient needs only its result, which is the next product's input; other activations need both.
        return 1 if self.activation == "relu" else 2


class Gated(_Dense):
    """(act(x Wg) * x Wu) Wd: SwiGLU with silu, GEGLU with gelu (Shazeer 2020)."""

    maps: ClassVar = 3
    type: Literal["gated"] = "gated"
    hidden: Size
    activation: Activation = "silu"
    bias: bool = False
    dropout: Probability = 0.0

    def kept_hidden(self) -> int:
        return 4


class Squared(_Dense):
    """act(x W1 + b1) ** 2 W2 + b2: the squared ReLU of Primer (So et al. 2021)."""

    maps: ClassVar = 2
    type: Literal["squared"] = "squared"
    hidden: Size
    activation: Activation = "relu"
    bias: bool = False
    dropout: Probability = 0.0

    def kept_hidden(self) -> int:
        # The activation's result and its square; what the activation read, where it is not ReLU.
        return 2 if self.activation == "relu" else 3


class MixtureOfExperts(Part):
    """Many gated networks, of which a router picks a few for each token (Shazeer et al. 2017; Jiang et al. 2024).

    experts: how many there are; active: how many each token is sent to. hidden: width of each expert's hidden layer.
    normalize: the weights of the chosen experts are made to sum to 1.
    """

    type: Literal["mixture-of-experts"] = "mixture-of-experts"
    experts: Experts
    active: Size = 2
    hidden: Size
    activation: Activation = "silu"
    normalize: bool = True

    @model_validator(mode="after")
    def _enough_experts(self) -> Self:
        if self.active > self.experts:
            raise ValueError(f"active = {self.active} is more than experts = {self.experts}")
        return self

    def matrices(self, dim: int) -> int:
        """Numbers in the router: Muon does not take the experts, which stand in tensors of three dimensions."""
        return dim * self.experts

    def parameters(self, dim: int) -> int:
        return self.matrices(dim) + self.experts * 3 * dim * self.hidden

    def active_parameters(self, dim: int) -> int:
        """Numbers that one token meets: those of the router, and of the experts that it is sent to."""
        return self.matrices(dim) + self.active * 3 * dim * self.hidden

    def flops(self, dim: int) -> int:
        """Operations a token in the matrix products."""
        return 2 * self.active_parameters(dim)

    def found(self, dim: int, tensor: int = 1) -> int:
        """Numbers a token that the products make. The experts are in no processes' shares."""
        return self.experts + self.active * (dim + 2 * self.hidden)

    def kept(self, dim: int, tensor: int = 1) -> int:
        """Numbers kept a token for the backward pass."""
        # Each expert's copy of its tokens, what it makes of them, and that by the router's weight.
        return dim + self.experts + self.active * (3 * dim + 4 * self.hidden)


FeedForward = Annotated[PositionWise | Gated | Squared | MixtureOfExperts, Field(discriminator="type")]
