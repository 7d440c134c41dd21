"""What one recorded pass shows: maps of attention, the candidates at each position, and the lens.

Shapes: L layers, H heads, S rows, T columns, D width of the stream, V vocabulary, C labels; the batch is of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from sublayer.inspection.groups import Group
from sublayer.inspection.lens import layer_names
from sublayer.inspection.recording import Recording
from sublayer.inspection.view import Candidate, Lens, Map, Prediction, quantised
from sublayer.models import Transformer as Model

CANDIDATES, LENS_DEPTH = 8, 5
LENS_WORK = 2e10
"""Floating-point operations that a lens may cost without having been asked for: a second on one core."""
AT_ONCE = 64
"""Positions whose logits stand in memory together."""

Spelled = Callable[[int], str]
Read = Callable[[Tensor], Tensor]
"""The residual stream after a layer [1, P, D] -> what the model would say, were that its last layer [1, P, V or C]."""


def attention_map(seen: Recording, group: Group, title: str, rows: str, columns: str, most: int | None = None) -> Map:
    """The recorded weights of one kind of attention; of the first `most` rows, if there are more."""
    # Quantised one by one: the floats of all layers would take four times the memory once more.
    layers = [quantised(seen[tap][0][0, :, :most].float().cpu().numpy()) for tap in group.taps("weights")]
    return Map(group.name, title, rows, columns, group.causal, np.stack(layers))


def streams(seen: Recording) -> list[Tensor]:
    """The residual stream as it begins and after each layer: L + 1 of [1, S, D]."""
    return [calls[0] for tap, calls in seen.items() if tap.endswith(".stream")]


def predictions(
    stream: Tensor, read: Read, stands: Sequence[int | None], spelled: Spelled
) -> tuple[list[Prediction], list[float]]:
    """What the model expects at each position, and the log-probability of what stands there (0 where nothing does).

    Args:
        stands: for each position the token that stands where the model predicts, or None.

    Shape: stream [1, S, D], the last one.
    """
    found: list[Prediction] = []
    sure: list[float] = []
    for begin in range(0, len(stands), AT_ONCE):
        scores = read(stream[:, begin : begin + AT_ONCE])[0].float().log_softmax(-1)
        for offset, row in enumerate(scores):
            at = begin + offset
            token = stands[at]
            candidates = best(row.exp(), CANDIDATES, spelled)
            if token is None:
                found.append(Prediction(at, candidates))
                sure.append(0.0)
                continue
            chance = row[token]
            chosen = Candidate(token, spelled(token), float(chance.exp()))
            found.append(Prediction(at, candidates, chosen, int((row > chance).sum())))
            sure.append(float(chance))
    return found, sure


def lens(stream: Sequence[Tensor], read: Read, first: int | None, spelled: Spelled, model: Model) -> Lens:
    """The logit lens (nostalgebraist 2020): the last norm and the projection on the stream after every layer.

    Of as many positions as `LENS_WORK` allows: from `first` on, or the last ones.
    """
    size = stream[0].shape[1]
    cost = 2 * model.config.dim * model.config.vocab_size * len(stream)
    count = min(size, max(1, int(LENS_WORK / cost)))
    begin = size - count if first is None else min(first, size - 1)
    rows = [
        tuple(best(one, LENS_DEPTH, spelled) for one in read(x[:, begin : begin + count])[0].float().softmax(-1))
        for x in stream
    ]
    return Lens(begin, tuple(layer_names(len(stream) - 1)), tuple(rows))


def label_lens(stream: Sequence[Tensor], chances: Read, labels: Sequence[str]) -> Lens:
    """The same for a head that gives labels: for each token, or one for the whole text.

    `chances` gives [1, S, C] or [1, C]: what the scores mean (`models.heads.meaning`).
    """
    rows: list[tuple[tuple[Candidate, ...], ...]] = []
    for x in stream:
        scores = chances(x).view(-1, len(labels))
        rows.append(tuple(best(one, LENS_DEPTH, lambda label: labels[label]) for one in scores))
    return Lens(0, tuple(layer_names(len(stream) - 1)), tuple(rows), "labels")


def best(chances: Tensor, most: int, spelled: Spelled) -> tuple[Candidate, ...]:
    """Shape: chances [V]."""
    chance, token = chances.topk(min(most, chances.shape[-1]))
    pairs = zip(cast("list[int]", token.tolist()), cast("list[float]", chance.tolist()), strict=True)
    return tuple(Candidate(token, spelled(token), chance) for token, chance in pairs)


def row(ids: Sequence[int], device: torch.device) -> Tensor:
    """Shape: [1, S] int64."""
    return torch.tensor([list(ids)], device=device)
