"""One layer of a stack (section 3.1, figure 1): self-attention, in a decoder cross-attention, then feed-forward."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from sublayer import config, fast
from sublayer.nn.attention import CrossAttention, SelfAttention
from sublayer.nn.context import LayerContext
from sublayer.nn.feed_forward import build_feed_forward
from sublayer.nn.normalization import build_norm
from sublayer.nn.recompute import recomputed
from sublayer.nn.sublayer import SubLayer
from sublayer.nn.tap import Tap


class Block(nn.Module):
    """x -> self-attention -> (cross-attention ->) feed-forward, each a sub-layer.

    In a parallel block both sub-layers read the same stream, and their outputs are added together. The tap `stream`
    sees the residual stream that leaves. In training, what `activation_checkpointing` says is not kept for the way back
    but computed again there.

    Args:
        cross: whether the block attends to an encoder's output too.
    """

    activation_checkpointing: Literal["none", "selective", "full"] = "none"

    def __init__(self, c: config.Block, dim: int, *, cross: bool = False) -> None:
        super().__init__()
        self.self_attention = SelfAttention(c.attention, dim)
        self.self_attention_sublayer = SubLayer(c, dim, reads_norm=c.attention_norm)
        self.cross_attention = CrossAttention(c.cross, dim) if cross else None
        self.cross_attention_sublayer = SubLayer(c, dim) if cross else None
        self.feed_forward = build_feed_forward(c.feed_forward, dim)
        self.feed_forward_sublayer = SubLayer(c, dim)
        self.parallel = c.norm_placement.startswith("parallel")
        self.shared_norm = build_norm(c.norm, dim) if c.norm_placement == "parallel-shared" else None
        self.stream = Tap()

    def stream_writers(self) -> list[Tensor]:
        """The weights of all sub-layers that write to the residual stream."""
        parts = (self.self_attention, self.cross_attention, self.feed_forward)
        return [weight for part in parts if part is not None for weight in part.stream_writers()]

    def forward(self, x: Tensor, context: LayerContext) -> Tensor:
        """Shape: x [B, S, D] -> [B, S, D]."""
        if self.activation_checkpointing == "none" or not (self.training and torch.is_grad_enabled()):
            return self._forward(x, context)
        return recomputed(self._forward, x, context, selective=self.activation_checkpointing == "selective")

    def _forward(self, x: Tensor, context: LayerContext) -> Tensor:
        attend = partial(self.self_attention, context=context)
        if self.parallel:
            read = x if self.shared_norm is None else self.shared_norm(x)
            mixed = self.self_attention_sublayer.residual_branch(read, attend)
            return self.stream(x + mixed + self.feed_forward_sublayer.residual_branch(read, self.feed_forward))
        x = self.self_attention_sublayer(x, attend)
        if self.cross_attention is not None and self.cross_attention_sublayer is not None:
            x = self.cross_attention_sublayer(x, partial(self.cross_attention, context=context))
        x = self.feed_forward_sublayer(x, self.feed_forward)
        return self.stream(x)

    def lower(self, program: fast.Program, x: fast.Buffer, layer: fast.Layer) -> fast.Buffer:
        def attend(read: fast.Buffer) -> fast.Buffer:
            return program.lower(self.self_attention, read, layer)

        def feed(read: fast.Buffer) -> fast.Buffer:
            return program.lower(self.feed_forward, read)

        if self.parallel:
            read = x if self.shared_norm is None else program.lower(self.shared_norm, x)
            mixed = self.self_attention_sublayer.lower_branch(program, read, attend)
            fed = self.feed_forward_sublayer.lower_branch(program, read, feed)
            program.add(x, fed)
            program.add(x, mixed)
            return x
        x = program.lower(self.self_attention_sublayer, x, attend)
        cross = self.cross_attention
        if cross is not None and self.cross_attention_sublayer is not None:

            def look(read: fast.Buffer) -> fast.Buffer:
                return program.lower(cross, read, layer)

            x = program.lower(self.cross_attention_sublayer, x, look)
        return program.lower(self.feed_forward_sublayer, x, feed)
