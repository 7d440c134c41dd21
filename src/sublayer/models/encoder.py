"""The encoder (section 3.1): every position sees every other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sublayer import config, fast
from sublayer.models.stack import Stack, restarting
from sublayer.nn.context import Context
from sublayer.nn.convolution import text_numbers
from sublayer.nn.embedding import Embedding
from sublayer.nn.mask import Mask


@dataclass(frozen=True, eq=False)
class Memory:
    """What the encoder leaves for the decoder.

    Shape: states [B, S, D]; lengths [B], how many of the S are real, or None for all.
    """

    states: Tensor
    lengths: Tensor | None

    @property
    def mask(self) -> Mask:
        return Mask.padding(self.lengths)


class Encoder(Stack):
    """A stack in which every token sees all others, or those in its window."""

    def __init__(self, c: config.Stack, embedding: Embedding, dim: int, max_length: int) -> None:
        super().__init__(c, embedding, dim, max_length, causal=False)

    def forward(
        self,
        tokens: Tensor,
        lengths: Tensor | None = None,
        *,
        token_type_ids: Tensor | None = None,
        segments: Tensor | None = None,
    ) -> Memory:
        """Shape: tokens [B, S] int64, lengths [B] int64 (padding on the right) -> states [B, S, D].

        Args:
            token_type_ids: kind of each token, [B, S] int64.
            segments: number of each token's text, [B, S] int64, where several texts are packed in a row: they do not
                see each other, and positions begin anew.
        """
        size = tokens.shape[1]
        positions = torch.arange(size, device=tokens.device) if segments is None else restarting(segments)
        mask = Mask.padding(lengths) & Mask.segments(segments)
        context = Context(
            positions,
            self.resolve(mask, positions, dtype=self.dtype, lengths=lengths),
            token_type_ids=token_type_ids,
            texts=None if self.embedding.convolution is None else text_numbers(tokens, lengths, segments),
        )
        return Memory(self.through(tokens, context), lengths)

    def lower(self, program: fast.Program) -> fast.Buffer:
        return self.lower_through(program)
