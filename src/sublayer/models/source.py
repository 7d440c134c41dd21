"""A source while its translation is decoded: what cross-attention reads of it, computed once."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from sublayer.nn.context import KeysValues
from sublayer.nn.mask import Mask, ResolvedMask


@dataclass(eq=False)
class Source:
    """Keys and values of each layer, one copy a sentence; no layers where a decoder has no source.

    lengths: how many positions of each sentence are real, int64 [B]; None for all.
    """

    layers: list[KeysValues] = field(default_factory=list[KeysValues])
    lengths: Tensor | None = None
    _mask: ResolvedMask | None = field(default=None, repr=False)

    @property
    def size(self) -> int:
        """Positions of a sentence, padding included."""
        return self.layers[0][0].shape[2] if self.layers else 0

    @property
    def bytes(self) -> int:
        return sum(part.nbytes for pair in self.layers for part in pair)

    def mask(self, dtype: torch.dtype) -> ResolvedMask:
        """Who may attend to what of it, resolved once."""
        if self._mask is None:
            device = self.layers[0][0].device
            self._mask = Mask.padding(self.lengths).resolve(1, self.size, device=device, dtype=dtype)
        return self._mask

    def at(self, sentences: Tensor) -> Source:
        """The source of these sentences. Shape: sentences [B'], integer."""
        lengths = None if self.lengths is None else self.lengths[sentences]
        return Source([(key[sentences], value[sentences]) for key, value in self.layers], lengths)

    def joined(self, other: Source) -> Source:
        """The source of all sentences of both, the shorter padded at the right."""
        if not self.layers:
            return Source()
        size = max(self.size, other.size)
        layers = [
            (_stacked(key, other_key, size), _stacked(value, other_value, size))
            for (key, value), (other_key, other_value) in zip(self.layers, other.layers, strict=True)
        ]
        if self.lengths is None and other.lengths is None and self.size == other.size:
            return Source(layers)
        return Source(layers, torch.cat((self._all_lengths(), other._all_lengths())))

    def put(self, sentences: Tensor, other: Source) -> None:
        """Put another source, which is no longer than this one, in the place of some sentences'."""
        if not self.layers:
            return
        for own, new in zip(self.layers, other.layers, strict=True):
            for part, new_part in zip(own, new, strict=True):
                part[sentences, :, : other.size] = new_part
        # A copy: they may be the caller's own.
        self.lengths = self._all_lengths().clone()
        self.lengths[sentences] = other._all_lengths()
        self._mask = None

    def _all_lengths(self) -> Tensor:
        key = self.layers[0][0]
        return torch.full((len(key),), self.size, device=key.device) if self.lengths is None else self.lengths


def _stacked(one: Tensor, other: Tensor, size: int) -> Tensor:
    """[B, G, S, d] and [B', G, S', d], each padded to `size` positions -> [B + B', G, size, d]."""
    return torch.cat([F.pad(part, (0, 0, 0, size - part.shape[2])) for part in (one, other)])
