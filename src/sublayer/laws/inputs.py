"""What the laws are tried on: a small ragged batch of random tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from sublayer.models import EncoderDecoder


@dataclass(frozen=True, eq=False)
class Inputs:
    """A batch with padding on the right, whose padding holds tokens like any other.

    Shape: source [B, S], target [B, T] int64; source_lengths, target_lengths [B] int64, 1 or more, the last row full.
    """

    source: Tensor
    source_lengths: Tensor
    target: Tensor
    target_lengths: Tensor
    vocab_size: int

    @classmethod
    def draw(cls, model: EncoderDecoder, seed: int = 0, *, rows: int = 4, length: int = 9) -> Self:
        """Tokens and lengths for `model`, a function of `seed` alone.

        Args:
            length: of the source; the target has one token less. Shorter where the model's positions end sooner.
        """
        generator = torch.Generator().manual_seed(seed)
        source_size = min(length, model.config.max_length)
        target_size = min(max(length - 1, 1), model.config.max_length)

        def tokens(size: int) -> Tensor:
            return torch.randint(model.config.vocab_size, (rows, size), generator=generator).to(model.device)

        def lengths(size: int) -> Tensor:
            drawn = torch.randint(1, size + 1, (rows,), generator=generator)
            # One row is as long as the batch, and surely another one is not.
            drawn[0], drawn[-1] = (size + 1) // 2, size
            return drawn.to(model.device)

        return cls(
            tokens(source_size),
            lengths(source_size),
            tokens(target_size),
            lengths(target_size),
            model.config.vocab_size,
        )

    @property
    def rows(self) -> int:
        return self.source.shape[0]

    @property
    def real(self) -> Tensor:
        """[B, T], the target positions that are not padding."""
        return torch.arange(self.target.shape[1], device=self.target.device) < self.target_lengths.unsqueeze(1)

    def other_padding(self) -> Self:
        """The same text with other tokens in the padding, on both sides."""
        source_real = torch.arange(self.source.shape[1], device=self.source.device) < self.source_lengths.unsqueeze(1)
        return replace(
            self,
            source=torch.where(source_real, self.source, self.other(self.source)),
            target=torch.where(self.real, self.target, self.other(self.target)),
        )

    def other(self, tokens: Tensor) -> Tensor:
        """Tokens of which none is what stands in `tokens`."""
        return (tokens + 1) % self.vocab_size
