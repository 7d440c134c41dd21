"""One layer of a stack (section 3.1)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sublayer.config.model.attention import Attention
from sublayer.config.model.feed_forward import FeedForward
from sublayer.config.model.norm import LayerNorm, Norm
from sublayer.config.model.position import NoPosition, Position, Rotary
from sublayer.config.part import FLOAT32, Part, Probability

__all__ = ["Block", "NormPlacement"]

NormPlacement = Literal["post", "pre", "sandwich", "output", "parallel", "parallel-shared"]


class Block(Part):
    """One layer of a stack: its sub-layers and how they are joined to the residual stream.

    norm_placement: "post" is norm(x + f(x)), the paper's; "pre" is x + f(norm(x)); "sandwich" is x + norm(f(norm(x)));
    "output" is x + norm(f(x)) (OLMo-2). "parallel" is x + attention(norm(x)) + feed_forward(norm'(x)) (GPT-NeoX);
    "parallel-shared" the same with one norm for both (GPT-J, Falcon).
    cross_attention: a decoder's attention to the encoder; unset means the same as `attention`, without a window.
    attention_norm: whether the self-attention has its norm (the first layer of ModernBERT reads the stream as it is).
    position: rotary positions of this block's own, or none; unset means the stack's.
    dropout: on each sub-layer's output before it is added (section 5.4).
    """

    attention: Attention
    cross_attention: Attention | None = None
    feed_forward: FeedForward
    norm: Norm = LayerNorm()
    attention_norm: bool = True
    norm_placement: NormPlacement = "post"
    position: Annotated[Rotary | NoPosition, Field(discriminator="type")] | None = None
    dropout: Probability = 0.0

    @model_validator(mode="after")
    def _norm_can_be_left_out(self) -> Self:
        if not self.attention_norm and self.norm_placement != "pre":
            raise ValueError(
                f"attention_norm = false with norm_placement = '{self.norm_placement}': only 'pre' can leave it out"
            )
        return self

    @property
    def cross(self) -> Attention:
        if self.cross_attention is not None:
            return self.cross_attention
        return self.attention.model_copy(update={"window": None})

    @property
    def parallel(self) -> bool:
        """Whether both sub-layers read the same stream."""
        return self.norm_placement.startswith("parallel")

    @property
    def leaves_norm(self) -> bool:
        """Whether the stream that leaves is normalized."""
        return self.norm_placement == "post"

    # --- arithmetic, with D the width of the stream; cross: whether there is attention to an encoder

    def sublayers(self, *, cross: bool) -> int:
        return 3 if cross else 2

    def norms(self, *, cross: bool) -> int:
        """Norms over D: one a sub-layer, two in sandwich form, or one for all."""
        if self.norm_placement == "parallel-shared":
            return 1
        return self.sublayers(cross=cross) * (2 if self.norm_placement == "sandwich" else 1) - (not self.attention_norm)

    def parameters(self, dim: int, *, cross: bool, active: bool) -> dict[str, int]:
        """By part. active: only those that one token meets."""
        part = self.feed_forward
        count = {"self_attention": self.attention.parameters(dim)}
        if cross:
            count["cross_attention"] = self.cross.parameters(dim)
        count["feed_forward"] = part.active_parameters(dim) if active else part.parameters(dim)
        return {**count, "norms": self.norms(cross=cross) * self.norm.parameters(dim)}

    def matrices(self, dim: int, *, cross: bool) -> int:
        """Numbers in the matrices that Muon takes."""
        attention = self.attention.matrices(dim) + (self.cross.matrices(dim) if cross else 0)
        return attention + self.feed_forward.matrices(dim)

    def flops(self, dim: int) -> int:
        """Operations a token in the products, but for those with attention's keys and values, and for a source's."""
        return self.attention.flops(dim) + self.feed_forward.flops(dim)

    def kept(self, dim: int, size: int, position: Position, *, cross: bool, tensor: int = 1) -> int:
        """Bytes kept a token for the backward pass.

        Norms and the dropouts' masks in float32; in the products' type, of `size` bytes, the inputs of the products and
        of attention. position: the stack's. tensor: how many processes share heads and hidden layer.
        """
        turned = (self.position or position).turns
        numbers = self.attention.kept(dim, turned=turned, tensor=tensor) + self.feed_forward.kept(dim, tensor)
        if cross:
            numbers += self.cross.cross_kept(dim, tensor)
        if self.parallel:
            # Both sub-layers read the same: one stream into two norms, or what one norm has made of it.
            numbers -= dim
        masks = self.sublayers(cross=cross) * dim * FLOAT32 if self.dropout else 0
        return numbers * size + self.norms(cross=cross) * self.norm.kept(dim) + masks

    def found(self, dim: int, size: int, *, cross: bool, tensor: int = 1) -> int:
        """Bytes a token that the products and attention make, and that selective checkpointing keeps."""
        numbers = self.attention.found(dim, tensor) + self.feed_forward.found(dim, tensor)
        return (numbers + (self.cross.found(dim, tensor) if cross else 0)) * size
