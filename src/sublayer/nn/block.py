"""One layer of a stack (section 3.1, figure 1): self-attention, in a decoder cross-attention, then feed-forward."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from sublayer import config
from sublayer.nn.attention import CrossAttention, SelfAttention
from sublayer.nn.cache import LayerCache
from sublayer.nn.feed_forward import build_feed_forward
from sublayer.nn.mask import Scope
from sublayer.nn.positions import Rotation
from sublayer.nn.sublayer import SubLayer
from sublayer.nn.tap import Tap


class EncoderBlock(nn.Module):
    """x -> self-attention -> feed-forward, each a sub-layer. The tap `stream` sees the residual stream that leaves."""

    def __init__(self, c: config.Block, dim: int) -> None:
        super().__init__()
        self.self_attention = SelfAttention(c.attention, dim)
        self.self_attention_sublayer = SubLayer(c, dim)
        self.feed_forward = build_feed_forward(c.feed_forward, dim)
        self.feed_forward_sublayer = SubLayer(c, dim)
        self.stream = Tap()

    def forward(self, x: Tensor, scope: Scope, rotation: Rotation | None) -> Tensor:
        """Shape: x [B, S, D] -> [B, S, D]."""
        x = self.self_attention_sublayer(x, partial(self.self_attention, scope=scope, rotation=rotation))
        x = self.feed_forward_sublayer(x, self.feed_forward)
        return self.stream(x)


class DecoderBlock(nn.Module):
    """x -> self-attention -> cross-attention -> feed-forward, each a sub-layer."""

    def __init__(self, c: config.Block, dim: int) -> None:
        super().__init__()
        self.self_attention = SelfAttention(c.attention, dim)
        self.self_attention_sublayer = SubLayer(c, dim)
        self.cross_attention = CrossAttention(c.cross, dim)
        self.cross_attention_sublayer = SubLayer(c, dim)
        self.feed_forward = build_feed_forward(c.feed_forward, dim)
        self.feed_forward_sublayer = SubLayer(c, dim)
        self.stream = Tap()

    def forward(
        self,
        x: Tensor,
        scope: Scope,
        rotation: Rotation | None,
        memory: tuple[Tensor, Tensor],
        memory_scope: Scope,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """Shape: x [B, S, D] -> [B, S, D]; memory: this layer's cross-attention keys and values [B, G, T, d]."""
        attend = partial(self.self_attention, scope=scope, rotation=rotation, cache=cache)
        x = self.self_attention_sublayer(x, attend)
        x = self.cross_attention_sublayer(x, partial(self.cross_attention, keys_values=memory, scope=memory_scope))
        x = self.feed_forward_sublayer(x, self.feed_forward)
        return self.stream(x)
