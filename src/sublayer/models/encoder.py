"""The encoder (section 3.1): every position sees every other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sublayer import config
from sublayer.nn.block import EncoderBlock
from sublayer.nn.embedding import Embedding
from sublayer.nn.mask import Mask
from sublayer.nn.normalization import build_norm
from sublayer.nn.positions import build_position


@dataclass(frozen=True, eq=False)
class Memory:
    """What the encoder leaves for the decoder.

    Shape: states [B, S, D]; lengths [B], how many of the S are real, or None for all.
    """

    states: Tensor
    lengths: Tensor | None

    @property
    def mask(self) -> Mask:
        return Mask.everything() if self.lengths is None else Mask.padding(self.lengths)


class Encoder(nn.Module):
    """Embedding, N blocks, and a last norm where the wiring leaves the stream unnormalized."""

    def __init__(self, c: config.Stack, embedding: Embedding, dim: int, max_length: int) -> None:
        super().__init__()
        attention = c.block.attention
        self.embedding = embedding
        self.position = build_position(
            c.position,
            dim=dim,
            heads=attention.heads,
            head_dim=attention.width(dim),
            max_length=max_length,
            bidirectional=True,
        )
        self.layers = nn.ModuleList(EncoderBlock(c.block, dim) for _ in range(c.layers))
        self.norm = nn.Identity() if c.block.wiring == "post" else build_norm(c.block.norm, dim)
        self.window = Mask.everything() if attention.window is None else Mask.window(attention.window)

    def forward(self, tokens: Tensor, lengths: Tensor | None = None) -> Memory:
        """Shape: tokens [B, S] int64, lengths [B] int64 (padding on the right) -> states [B, S, D]."""
        size, device = tokens.shape[1], tokens.device
        positions = torch.arange(size, device=device)
        x = self.embedding(tokens, self.position, positions)
        dtype = compute_dtype(x)
        mask = self.window if lengths is None else self.window & Mask.padding(lengths)
        scope = mask.resolve(
            size, size, device=device, dtype=dtype, bias=self.position.bias(positions, positions, dtype)
        )
        rotation = self.position.rotation(positions, dtype)
        for layer in self.layers:
            x = layer(x, scope, rotation)
        return Memory(self.norm(x), lengths)


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type that products with x come out in: x's own, or autocast's."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
