"""What a pass through a stack has in common: worked out once, and read by every part.

Modules take one object beside the stream. A new thing that attention needs to know is a field here, and nothing between
the stack and the attention needs to hear of it.

Shapes: B batch, S new positions, G key-value heads, T positions of the source, d width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from sublayer.nn.cache import KeyValueCache, LayerCache
from sublayer.nn.mask import ResolvedMask
from sublayer.nn.positions import Rotation

KeysValues: TypeAlias = tuple[Tensor, Tensor]
"""Keys and values of a source, [B, G, T, d] each."""


@dataclass(frozen=True, eq=False)
class LayerContext:
    """What one layer reads beside the stream.

    mask: who may attend to whom. rotation: how queries and keys are turned, or None. cache: what was fed before, of
    this layer. memory: the source as this layer's cross-attention sees it; where it is not there yet, `source` is what
    it is made of, the encoder's states [B, T, D]. memory_mask: who may attend to what of it.
    """

    mask: ResolvedMask
    rotation: Rotation | None = None
    cache: LayerCache | None = None
    memory: KeysValues | None = None
    source: Tensor | None = None
    memory_mask: ResolvedMask | None = None


@dataclass(frozen=True, eq=False)
class Context:
    """What all layers of a stack have in common in one pass.

    positions: of the new tokens, int64 [S] or [B, S]. kinds: for each kind of layer who may attend to whom, and how
    queries and keys are turned. token_type_ids: int64 [B, S], or None.
    texts: number of the text that each token belongs to, int64 [B, S], where somebody asks for it.
    cache: what was fed before. memory: the source, for each layer; or `source`, of which each layer makes it itself.
    """

    positions: Tensor
    kinds: Sequence[tuple[ResolvedMask, Rotation | None]]
    token_type_ids: Tensor | None = None
    texts: Tensor | None = None
    cache: KeyValueCache | None = None
    memory: Sequence[KeysValues] = ()
    source: Tensor | None = None
    memory_mask: ResolvedMask | None = None

    def layer(self, index: int, kind: int) -> LayerContext:
        """What layer `index` reads, which is of that kind."""
        mask, rotation = self.kinds[kind]
        cache = None if self.cache is None else self.cache.layer(index)
        memory = self.memory[index] if self.memory else None
        return LayerContext(mask, rotation, cache, memory, self.source, self.memory_mask)


def joined_sources(
    ours: Sequence[KeysValues], our_lengths: Tensor | None, theirs: Sequence[KeysValues], their_lengths: Tensor | None
) -> tuple[list[KeysValues], Tensor | None]:
    """Keys and values of two sources, layer by layer, as those of one batch; and how much of each sentence is real.

    Shape: ours [B, G, S, d], theirs [B', G, S', d] -> [B + B', G, max(S, S'), d]; lengths [B + B'] int64, None where
    all is real.
    """
    if not ours:
        return [], None
    (key, _), (other, _) = ours[0], theirs[0]
    most = max(key.shape[2], other.shape[2])

    def widened(part: Tensor) -> Tensor:
        return F.pad(part, (0, 0, 0, most - part.shape[2]))

    joined = [
        (torch.cat((widened(k), widened(other_k))), torch.cat((widened(v), widened(other_v))))
        for (k, v), (other_k, other_v) in zip(ours, theirs, strict=True)
    ]
    if our_lengths is None and their_lengths is None and key.shape[2] == other.shape[2]:
        return joined, None
    lengths = [
        torch.full((part.shape[0],), part.shape[2], device=part.device) if length is None else length
        for part, length in ((key, our_lengths), (other, their_lengths))
    ]
    return joined, torch.cat(lengths)
