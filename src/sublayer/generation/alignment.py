"""Which source token a translated token came from, read off the cross-attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sublayer.errors import InputError
from sublayer.models import EncoderDecoder, SequenceToSequence
from sublayer.models.batching import padded
from sublayer.models.evaluating import evaluating
from sublayer.nn.tap import Tap, hooked
from sublayer.text.batching import by_length

TOKENS = 4000
"""Of sources and targets together, read at a time."""


def alignments(
    model: SequenceToSequence,
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    *,
    start_id: int,
    layer: int | None = None,
) -> list[Tensor]:
    """Cross-attention of one decoder layer, averaged over its heads, for pairs of source and translation.

    Row t says where the model looked while it predicted `targets[i][t]`, and sums to 1. The targets are fed whole, some
    pairs at a time; no other layer leaves the fused path.

    The layer is the last but one where none is given (of a single layer, that one): averaged over its heads it gave
    the best alignments in Garg et al. 2019 ("Jointly Learning to Align and Translate with Transformer Models",
    https://arxiv.org/abs/1909.02074).

    Args:
        sources: as the encoder reads them, the end marker included. targets: without markers; may be empty.
        layer: counted from 0; negative from the last. A recurrent decoder has one.

    Returns:
        for each pair [T, S], float32 on the CPU; T tokens of its target, S of its source.

    Raises:
        InputError: there is no such layer, or no attention at all, a source has no token, or a sentence is longer than
            the positions.
    """
    weights_of = _weights(model, layer)
    if not all(sources):
        raise InputError("there is nothing to align with: a source has no token")
    # Row t of the attention belongs to the token fed at t, and it predicts the next: feed what stands before each.
    fed = [[start_id, *target[:-1]] for target in targets]
    found: list[Tensor] = [torch.empty(0)] * len(fed)
    seen: list[Tensor] = []

    def keep(tap: nn.Module, inputs: tuple[Tensor, ...], weights: Tensor) -> None:
        seen.append(weights.detach().float().mean(dim=1).cpu())

    with evaluating(model), hooked({"weights": weights_of}, lambda _: keep):
        for rows in by_length([len(source) + len(target) for source, target in zip(sources, fed, strict=True)], TOKENS):
            # What pads is masked or unread: any id does.
            source, lengths = padded([sources[row] for row in rows], 0, model.device)
            target, _ = padded([fed[row] for row in rows], 0, model.device)
            with torch.no_grad():
                model.hidden(source, lengths, target)
            for row, weights in zip(rows, seen.pop(), strict=True):
                found[row] = weights[: len(targets[row]), : len(sources[row])].clone()
    return found


def _weights(model: SequenceToSequence, layer: int | None) -> Tap:
    """Where the attention of the chosen layer shows itself."""
    if isinstance(model, EncoderDecoder):
        layers = len(model.decoder.layers)
        chosen = max(layers - 2, 0) if layer is None else layer
        _require_layer(layer, chosen, layers)
        return model.decoder.cross_attention(chosen).weights
    if model.decoder.cross_attention is None:
        raise InputError(
            "this model's decoder has no attention, so nothing says where a token came from",
            "Train one with model.decoder.attention.type = 'multiplicative'.",
        )
    _require_layer(layer, layer or 0, 1)
    return model.decoder.cross_attention.weights


def _require_layer(asked: int | None, chosen: int, layers: int) -> None:
    if not -layers <= chosen < layers:
        raise InputError(f"layer = {asked}, but the decoder's layers are 0 to {layers - 1}")
