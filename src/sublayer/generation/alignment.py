"""Which source token a translated token came from, read off the cross-attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sublayer.errors import InputError
from sublayer.models import EncoderDecoder
from sublayer.nn.block import DecoderBlock


def alignments(
    model: EncoderDecoder,
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    *,
    start_id: int,
    layer: int | None = None,
) -> list[Tensor]:
    """Cross-attention of one decoder layer, averaged over its heads, for pairs of source and translation.

    Row t says where the model looked while it predicted `targets[i][t]`; it sums to 1. All pairs are one batch, fed
    whole; no other layer leaves the fused path.

    The layer is the last but one where none is given (of a single layer, that one): averaged over its heads it gave
    the best alignments in Garg et al. 2019 ("Jointly Learning to Align and Translate with Transformer Models",
    https://arxiv.org/abs/1909.02074).

    Args:
        sources: as the encoder reads them, the end marker included. targets: without markers; may be empty.
        layer: counted from 0; negative from the last.

    Returns:
        for each pair [T, S], float32 on the CPU; T tokens of its target, S of its source.

    Raises:
        InputError: there is no such layer, a source has no token, or a sentence is longer than the positions.
    """
    layers = model.decoder.layers
    chosen = max(len(layers) - 2, 0) if layer is None else layer
    if not -len(layers) <= chosen < len(layers):
        raise InputError(f"layer = {layer}, but the decoder's layers are 0 to {len(layers) - 1}")
    if not sources:
        return []
    if not all(sources):
        raise InputError("there is nothing to align with: a source has no token")
    block = layers[chosen]
    assert isinstance(block, DecoderBlock)
    # Row t of the attention belongs to the token fed at t, and it predicts the next: feed what stands before each.
    fed = [[start_id, *target][: max(len(target), 1)] for target in targets]
    lengths = torch.tensor([len(source) for source in sources], device=model.device)
    seen: list[Tensor] = []

    def keep(tap: nn.Module, inputs: tuple[Tensor, ...], weights: Tensor) -> None:
        seen.append(weights.detach().float().mean(dim=1))

    training = model.training
    hook = block.cross_attention.weights.register_forward_hook(keep)
    try:
        model.eval()
        with torch.no_grad():
            model.hidden(_padded(sources, model.device), lengths, _padded(fed, model.device))
    finally:
        hook.remove()
        model.train(training)
    maps = seen[0].cpu()
    return [
        maps[row, : len(target), : len(source)].clone()
        for row, (source, target) in enumerate(zip(sources, targets, strict=True))
    ]


def _padded(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """[B, longest] int64. What stands after a row's end is masked or unread, so any id does."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
