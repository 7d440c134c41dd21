"""What every model is made of (figure 1): embedded tokens, N blocks, and a last norm.

Encoder and decoder are stacks; they differ in who may attend to whom, and in what they remember.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from sublayer import config, fast
from sublayer.errors import InputError
from sublayer.nn.block import Block
from sublayer.nn.context import Context
from sublayer.nn.embedding import Embedding
from sublayer.nn.mask import Mask, ResolvedMask
from sublayer.nn.normalization import build_norm
from sublayer.nn.positions import Position, Rotation, build_position


class Stack(nn.Module):
    """Embedding, N blocks, and a last norm where the norm placement leaves the stream unnormalized.

    What the layers need to know of positions and masks is worked out once for all layers that are alike in it.

    Args:
        cross: whether the blocks attend to an encoder's output. causal: whether a token sees only its past.
    """

    def __init__(
        self, c: config.Stack, embedding: Embedding, dim: int, max_length: int, *, causal: bool, cross: bool = False
    ) -> None:
        super().__init__()
        attention = c.block.attention
        self.causal, self.norm_placement = causal, c.block.norm_placement
        self.max_length = max_length
        self.embedding = embedding

        def position(kind: config.Position) -> Position:
            return build_position(
                kind,
                dim=embedding.width,
                heads=attention.heads,
                head_dim=attention.width(dim),
                max_length=max_length,
                bidirectional=not causal,
            )

        self.position = position(c.position)
        blocks = c.blocks
        self.layers = nn.ModuleList(Block(block, dim, cross=cross) for block in blocks)
        self.norm = nn.Identity() if c.last_norm is None else build_norm(c.last_norm, dim)
        # Layers of a kind share their window and their positions; most stacks have one kind.
        kinds = [(block.attention.window, block.position) for block in blocks]
        self.kinds = list(dict.fromkeys(kinds))
        self.kind_of_layer = [self.kinds.index(kind) for kind in kinds]
        self.other_positions = nn.ModuleList(nn.Identity() if own is None else position(own) for _, own in self.kinds)
        self.cache_heads, self.cache_width = attention.key_value_heads, attention.width(dim)

    def quieten(self) -> None:
        """Scale down what each sub-layer writes to the stream, where no norm undoes it."""
        if self.norm_placement not in ("pre", "parallel", "parallel-shared"):
            return
        writers = [weight for layer in self.layers for weight in cast("Block", layer).stream_writers()]
        for weight in writers:
            weight.data.div_(math.sqrt(len(writers)))

    def resolve(
        self,
        mask: Mask,
        positions: Tensor,
        keys: Tensor | None = None,
        *,
        dtype: torch.dtype,
        lengths: Tensor | None = None,
        first: Tensor | None = None,
    ) -> list[tuple[ResolvedMask, Rotation | None]]:
        """For each kind of layer who may attend to whom, and how queries and keys are turned.

        Args:
            mask: beside the stack's own causality and windows. keys: positions of the keys; unset: those of the
                queries. lengths, first: as in `Mask.resolve`.

        Shape: positions [S] or [B, S] and keys [T] or [B, T] int64.
        """
        keys = positions if keys is None else keys
        size = positions.shape[-1], keys.shape[-1]
        own = Mask.causal() if self.causal else Mask.everything()
        found: list[tuple[ResolvedMask, Rotation | None]] = []
        for (window, other), module in zip(self.kinds, self.other_positions, strict=True):
            position = self.position if other is None else cast("Position", module)
            whole = own if window is None else own & Mask.window(window)
            bias = position.bias(positions, keys, dtype)
            resolved = (whole & mask).resolve(
                *size, device=positions.device, dtype=dtype, bias=bias, lengths=lengths, first=first
            )
            found.append((resolved, position.rotation(positions, dtype)))
        return found

    def through(self, tokens: Tensor, context: Context) -> Tensor:
        """Embedding, layers and last norm. Shape: tokens [B, S] int64 -> [B, S, D]."""
        x = self.embedding(tokens, self.position, context)
        for index, (layer, kind) in enumerate(zip(self.layers, self.kind_of_layer, strict=True)):
            x = layer(x, context.layer(index, kind))
        return self.norm(x)

    def lower_through(self, program: fast.Program) -> fast.Buffer:
        """`through`, in the program of a model."""
        own = self.position.lower(self.max_length)
        kinds = [
            (window, own if other is None else cast("Position", module).lower(self.max_length))
            for (window, other), module in zip(self.kinds, self.other_positions, strict=True)
        ]
        x = program.lower(self.embedding, own)
        for index, (layer, kind) in enumerate(zip(self.layers, self.kind_of_layer, strict=True)):
            window, positions = kinds[kind]
            x = program.lower(layer, x, fast.Layer(index, positions, window, self.causal))
        return program.lower(self.norm, x)

    @property
    def dtype(self) -> torch.dtype:
        """The type that products come out in: the weights' own, or autocast's."""
        return compute_dtype(self.embedding.tokens.weight)


def restarting(segments: Tensor) -> Tensor:
    """The position of each token within its segment, from 0.

    Shape: segments [B, S] int64, the tokens of a segment side by side -> [B, S] int64.
    """
    place = torch.arange(segments.shape[1], device=segments.device)
    begins = torch.ones_like(segments, dtype=torch.bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return place - torch.where(begins, place, 0).cummax(dim=1).values


def longest(tokens: Tensor, segments: Tensor | None, enough: int) -> int:
    """The longest text in tokens: the rows' width, or the longest segment where that is more than `enough`.

    Shape: tokens [B, S], segments [B, S] int64.
    """
    size = tokens.shape[1]
    # Looking into the segments waits for the device, so only where the width does not settle it.
    return size if segments is None or size <= enough else int(restarting(segments).max()) + 1


def require_length(what: str, length: int, most: int) -> None:
    """Raise `InputError` where a text has more tokens than the model has positions: on a GPU, going past is fatal."""
    if length > most:
        raise InputError(
            f"the {what} has {length} tokens, but this model's positions end at {most}", "Shorten it, or split it."
        )


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type that products with x come out in: x's own, or autocast's."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
