"""What a pass through a stack has in common: worked out once, and read by every part.

Modules take one object beside the stream. A new thing that attention needs to know is a field here, and nothing between
the stack and the attention needs to hear of it.

Shapes: B batch, S new positions, G key-value heads, T positions of the source, d width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

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
