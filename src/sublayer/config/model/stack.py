"""Layers one above the other (section 3.1, figure 1)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sublayer.config.model.block import Block
from sublayer.config.model.norm import Norm
from sublayer.config.model.position import Place, Position, Sinusoidal
from sublayer.config.part import FLOAT32, MOST_LAYERS, Count, Part

__all__ = ["OtherLayers", "Recomputed", "Stack"]

Recomputed = Literal["none", "selective", "full"]
"""What of a block is computed again on the way back: nothing, all but the products and attention, or all."""


class OtherLayers(Part):
    """Layers, counted from 0, that are not like the rest: every second one with a window, say."""

    layers: tuple[Count, ...]
    block: Block


class Stack(Part):
    """`layers` blocks, all like `block` but those that `others` name.

    A stack whose blocks leave the stream unnormalized ends with a norm of its own, of the kind that `block` has.
    Without layers, which only an encoder-only model may be, it is the embedding alone: a convolution, say (Kim 2014).
    """

    layers: Annotated[int, Field(ge=0, le=MOST_LAYERS)]
    block: Block
    others: tuple[OtherLayers, ...] = ()
    position: Position = Sinusoidal()

    @model_validator(mode="after")
    def _others_fit(self) -> Self:
        named = [layer for other in self.others for layer in other.layers]
        for layer in named:
            if layer >= self.layers:
                there = f"are 0 to {self.layers - 1}" if self.layers else "are none"
                raise ValueError(f"others names layer {layer}, but the layers {there}")
            if named.count(layer) > 1:
                raise ValueError(f"others names layer {layer} twice")
        for other in self.others:
            for name in ("heads", "key_value_heads", "head_dim"):
                own, usual = getattr(other.block.attention, name), getattr(self.block.attention, name)
                if own != usual:
                    raise ValueError(
                        f"attention.{name} is {own} in some layers and {usual} in others; one cache holds all"
                    )
            if other.block.leaves_norm != self.block.leaves_norm:
                raise ValueError("norm_placement is 'post' in some layers and not in others")
        return self

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The block of each layer."""
        found = dict.fromkeys(range(self.layers), self.block)
        for other in self.others:
            found |= dict.fromkeys(other.layers, other.block)
        return tuple(found[layer] for layer in range(self.layers))

    @property
    def last_norm(self) -> Norm | None:
        """The norm after the last layer, where its block leaves the stream unnormalized."""
        return self.block.norm if self.layers and not self.block.leaves_norm else None

    def check(self, name: str, kind: str, dim: int, width: int, length: int, *, cross: bool) -> None:
        """Raise `ValueError` where the parts do not fit each other, an embedding of `width`, or a stream of `dim`.

        Args:
            name: where the stack stands. kind: of the model, which may have to read what its layers make. length: the
                longest text. cross: whether the stack attends to an encoder.
        """
        if not self.layers and kind != "encoder-only":
            raise ValueError(f"{name}.layers = 0, but model.kind = '{kind}': only 'encoder-only' can do without")
        for block in dict.fromkeys(self.blocks):
            attentions = {"attention": block.attention}
            if cross:
                attentions["cross_attention"] = block.cross
            elif block.cross_attention is not None:
                raise ValueError(f"{name}.block.cross_attention is set, but there is nothing to attend to")
            if cross and block.parallel:
                raise ValueError(
                    f"{name}.block.norm_placement = '{block.norm_placement}' is not for a decoder with cross-attention"
                )
            for label, attention in attentions.items():
                where = f"{name}.block.{label}"
                if label == "cross_attention" and attention.window is not None:
                    raise ValueError(f"{where}.window = {attention.window}: a window is for self-attention")
                if attention.head_dim is None and dim % attention.heads:
                    raise ValueError(f"dim = {dim} is not a multiple of {where}.heads = {attention.heads}")
            (block.position or self.position).check(self._place(name, block, dim, width, length))
        self.position.check(self._place(name, self.block, dim, width, length))

    def _place(self, name: str, block: Block, dim: int, width: int, length: int) -> Place:
        attention = block.attention
        return Place(name, width, attention.heads, attention.width(dim), length, bidirectional=name == "encoder")

    # --- arithmetic, with D the width of the stream; cross: whether there is attention to an encoder

    def parameters(
        self, name: str, dim: int, width: int, length: int, *, cross: bool = False, active: bool = False
    ) -> dict[str, int]:
        """By part, all layers together; the arguments are those of `check`. active: only those that one token meets."""
        position = self.position.parameters(self._place(name, self.block, dim, width, length))
        count = {"position": position} if position else {}
        for block in self.blocks:
            for part, numbers in block.parameters(dim, cross=cross, active=active).items():
                count[part] = count.get(part, 0) + numbers
        if self.last_norm is not None:
            count["norms"] += self.last_norm.parameters(dim)
        return {f"{name}.{part}": numbers for part, numbers in count.items()}

    def matrices(self, dim: int, *, cross: bool = False) -> int:
        """Numbers in the matrices that Muon takes."""
        return sum(block.matrices(dim, cross=cross) for block in self.blocks)

    def read_flops(self, dim: int, length: int, *, causal: bool) -> int:
        """Operations of all positions of a text at once, but for those of cross-attention."""
        return sum(
            length * block.flops(dim)
            + block.attention.attended_flops(dim, block.attention.pairs(length, causal=causal))
            for block in self.blocks
        )

    def step_flops(self, dim: int, held: int) -> int:
        """Operations of one token more, the last of `held`, but for those of cross-attention."""
        return sum(
            block.flops(dim) + block.attention.attended_flops(dim, block.attention.reach(held)) for block in self.blocks
        )

    def source_flops(self, dim: int) -> int:
        """Operations a token of the source that the layers attend to."""
        return sum(block.cross.source_flops(dim) for block in self.blocks)

    def cross_flops(self, dim: int, source_length: int) -> int:
        """Operations a token in attending to a source."""
        return sum(block.cross.cross_flops(dim, source_length) for block in self.blocks)

    def cached(self, dim: int) -> int:
        """Numbers in the keys and values of one token in all layers."""
        return sum(block.attention.cached(dim) for block in self.blocks)

    def cross_cached(self, dim: int) -> int:
        """The same of a token of the source."""
        return sum(block.cross.cached(dim) for block in self.blocks)

    def kept(
        self, dim: int, size: int, *, cross: bool = False, recomputed: Recomputed = "none", tensor: int = 1
    ) -> int:
        """Bytes kept a token for the backward pass, with products in numbers of `size` bytes.

        recomputed: what of a block is computed again on the way back, and not kept; the stream that enters each block
        is, and one block at a time as a whole. tensor: how many processes share heads and hidden layers.
        """
        each = [block.kept(dim, size, self.position, cross=cross, tensor=tensor) for block in self.blocks]
        layers = sum(each)
        if recomputed != "none":
            layers = max(each, default=0) + len(each) * dim * FLOAT32
        if recomputed == "selective":
            layers += sum(block.found(dim, size, cross=cross, tensor=tensor) for block in self.blocks)
        return layers + (0 if self.last_norm is None else self.last_norm.kept(dim))
