"""What the laws are tried on: a small ragged batch of random tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from sublayer import models


@dataclass(frozen=True, eq=False)
class Inputs:
    """A batch with padding on the right, whose padding holds tokens like any other.

                      source                              target
    encoder-decoder   what the encoder reads, 1 or more   what the decoder is fed
    decoder-only      how a text begins, 0 or more        how it goes on, right behind what is real of the source
    encoder-only      the text, 1 or more                 nothing: T is 0

    Shape: source [B, S], target [B, T] int64; source_lengths, target_lengths [B] int64, how many are real, None for
    all; token_type_ids [B, S] int64, the kinds of the source's tokens, where a model knows kinds.
    """

    source: Tensor
    source_lengths: Tensor | None
    target: Tensor
    target_lengths: Tensor | None
    vocab_size: int
    token_type_ids: Tensor | None = None

    @classmethod
    def draw(cls, model: models.Model, seed: int = 0, *, rows: int = 4, length: int = 9) -> Self:
        """Tokens and lengths for `model`, a function of `seed` alone. One source is as short as can be, the last full.

        Args:
            length: of the source; the target has one token less. Shorter where the model's positions end sooner.
        """
        generator = torch.Generator().manual_seed(seed)
        shortest, source_size, target_size = _sizes(model, length)

        def tokens(size: int, kinds: int = model.config.vocab_size) -> Tensor:
            return torch.randint(kinds, (rows, size), generator=generator).to(model.device)

        def lengths(least: int, size: int) -> Tensor:
            drawn = torch.randint(least, size + 1, (rows,), generator=generator)
            # One row is as long as the batch, and surely others are not.
            drawn[0], drawn[1 % rows], drawn[-1] = (size + 1) // 2, least, size
            return drawn.to(model.device)

        source, source_lengths = tokens(source_size), lengths(shortest, source_size)
        target, target_lengths = tokens(target_size), lengths(min(1, target_size), target_size)
        kinds = model.config.embedding.token_types if isinstance(model, models.EncoderOnly) else 0
        token_type_ids = tokens(source_size, kinds) if kinds else None
        return cls(source, source_lengths, target, target_lengths, model.config.vocab_size, token_type_ids)

    @property
    def rows(self) -> int:
        return self.source.shape[0]

    @property
    def real(self) -> Tensor:
        """[B, T], the target positions that are not padding."""
        return _real(self.target, self.target_lengths)

    @property
    def source_real(self) -> Tensor:
        """[B, S], the source positions that are not padding."""
        return _real(self.source, self.source_lengths)

    def alone(self, row: int) -> Self:
        """One text by itself: a row without padding and without lengths."""
        source, target = self.source_real[row], self.real[row]
        return replace(
            self,
            source=self.source[row, source].unsqueeze(0),
            source_lengths=None,
            target=self.target[row, target].unsqueeze(0),
            target_lengths=None,
            token_type_ids=None if self.token_type_ids is None else self.token_type_ids[row, source].unsqueeze(0),
        )

    def at(self, index: Tensor) -> Self:
        """The rows that `index` names, in its order. Shape: index [B'], integer."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{name: value[index] for name, value in tensors.items()})

    def repeated(self, times: int) -> Self:
        """Each text `times` times, side by side."""
        return self.at(torch.arange(self.rows, device=self.source.device).repeat_interleave(times))

    def other_padding(self) -> Self:
        """The same text with other tokens in the padding, on both sides."""
        return replace(
            self,
            source=torch.where(self.source_real, self.source, self.other(self.source)),
            target=torch.where(self.real, self.target, self.other(self.target)),
        )

    def other(self, tokens: Tensor) -> Tensor:
        """Tokens of which none is what stands in `tokens`."""
        return (tokens + 1) % self.vocab_size


def _sizes(model: models.Model, length: int) -> tuple[int, int, int]:
    """Tokens of the shortest and of the longest source, and of a target, that `model` has positions for."""
    most = model.config.max_length
    match model:
        case models.EncoderDecoder() | models.RecurrentEncoderDecoder():
            return 1, min(length, most), min(max(length - 1, 1), most)
        case models.DecoderOnly() | models.RecurrentDecoderOnly():
            # The two are one text; where there is hardly room, what is fed comes first.
            target = min(max(length - 1, 1), (most + 1) // 2)
            return 0, min(length, most - target), target
        case models.EncoderOnly():
            return 1, min(length, most), 0


def _real(tokens: Tensor, lengths: Tensor | None) -> Tensor:
    if lengths is None:
        return torch.ones_like(tokens, dtype=torch.bool)
    return torch.arange(tokens.shape[1], device=tokens.device) < lengths.unsqueeze(1)
