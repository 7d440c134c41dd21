"""The attention of every layer and head for one text, or for one sentence and its translation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sublayer.errors import InputError
from sublayer.inspection.examples import Example, batch_of
from sublayer.inspection.groups import Group, groups
from sublayer.inspection.recording import Recording, record
from sublayer.models import DecoderOnly, EncoderDecoder, EncoderOnly
from sublayer.models.evaluating import evaluating


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """Attention weights of one pair, float32 on the CPU: every row sums to 1.

    encoder: [L, H, S, S], each source token over the source.
    decoder: [L', H', T, T], each token that is fed over those fed so far; zero above the diagonal.
    cross: [L', H'', T, S], each token that is fed over the source.
    source_ids: S tokens, the rows and columns of `encoder` and the columns of `cross`.
    fed_ids: T tokens, the start marker and the translation: the rows and columns of `decoder`.
    predicted_ids: T tokens, the translation and the end marker. The decoder, given `fed_ids[t]`, predicts
        `predicted_ids[t]`; a row of `cross` is best read as where the model looks to write `predicted_ids[t]`.
    """

    encoder: Tensor
    decoder: Tensor
    cross: Tensor
    source_ids: list[int]
    fed_ids: list[int]
    predicted_ids: list[int]


def attention_maps(
    model: EncoderDecoder, source_ids: Sequence[int], target_ids: Sequence[int], *, start_id: int, end_id: int
) -> AttentionMaps:
    """The maps of one pair, the translation being given to the decoder whole (teacher forcing).

    The model is put into evaluation for the while, so that dropout does not blur the picture.

    Args:
        source_ids: as the encoder reads them, the end marker included. target_ids: without markers.

    Raises:
        InputError: the source has no token, or a side is longer than the model's positions.
    """
    if not source_ids:
        raise InputError("there is nothing to attend to: the source has no token")
    fed = [start_id, *target_ids]
    source = torch.tensor([list(source_ids)], device=model.device)
    with torch.no_grad(), evaluating(model), record(model, "*_attention.weights") as seen:
        model.hidden(source, None, torch.tensor([fed], device=model.device))
    encoder, decoder, cross = (_stacked(seen, group) for group in groups(model))
    return AttentionMaps(encoder, decoder, cross, list(source_ids), fed, [*target_ids, end_id])


@dataclass(frozen=True, eq=False)
class TextMaps:
    """Self-attention weights of one text, float32 on the CPU: every row sums to 1.

    weights: [L, H, S, S], each token over the text; zero above the diagonal where the model is causal. ids: S tokens.
    title: what the attention is called.
    """

    weights: Tensor
    ids: list[int]
    causal: bool
    title: str


def text_maps(model: DecoderOnly | EncoderOnly, example: Example) -> TextMaps:
    """The maps of one text in a model of one stack, without dropout.

    Raises:
        InputError: the text is longer than the model's positions.
    """
    [group] = groups(model)
    with torch.no_grad(), evaluating(model), record(model, *group.taps("weights")) as seen:
        batch_of(model, [example], [0]).hidden(model)
    return TextMaps(_stacked(seen, group), list(example.tokens), group.causal, group.title)


def _stacked(seen: Recording, group: Group) -> Tensor:
    """[L, H, S, T] from each layer's one call with one sentence, in the order of the layers."""
    return torch.stack([seen[tap][0][0].float().cpu() for tap in group.taps("weights")])
