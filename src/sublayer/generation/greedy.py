"""Greedy search: at every step the most probable token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sublayer.generation.batch import Steps
from sublayer.generation.finite import NotFinite, refuse
from sublayer.generation.loop import decode, most_probable
from sublayer.generation.request import DecodeRequest, Hypothesis

if TYPE_CHECKING:
    from torch import Tensor

    from sublayer.generation.constraints import Constraint
    from sublayer.models.backend import DecoderBackend, S


def greedy(
    model: DecoderBackend[S],
    source: Tensor,
    source_lengths: Tensor | None,
    request: DecodeRequest,
    *,
    length_penalty: float = 0.0,
    constraints: Sequence[Constraint] = (),
) -> list[list[Hypothesis]]:
    """The greedy text of each sentence, in a list of its own (as beam search gives its n best).

    Sentences that have ended leave the batch. `length_penalty` only enters the score that is reported.

    Shape: source [B, S] int64, source_lengths [B].
    """
    import torch

    from sublayer.generation.model_steps import ModelSteps

    with torch.no_grad():
        steps = ModelSteps(model, source.device)
        state = model.start(source, source_lengths, num_beams=1, capacity=max(request.steps))
        try:
            return greedy_texts(steps, state, request, length_penalty=length_penalty, constraints=constraints)
        except NotFinite as error:
            refuse(model, source, source_lengths, request, error.step)


def greedy_texts(
    steps: Steps[Any],
    state: Any,
    request: DecodeRequest,
    *,
    length_penalty: float = 0.0,
    constraints: Sequence[Constraint] = (),
) -> list[list[Hypothesis]]:
    """As `greedy`.

    Args:
        state: what `steps.start` made of the sources, with a row each.

    Raises:
        NotFinite: the model's numbers are not finite.
    """
    tokens: list[list[int]] = [[] for _ in request.first]
    gained: list[list[float]] = [[] for _ in request.first]
    complete = [False for _ in request.first]
    for step in decode(steps, state, request, most_probable, constraints=constraints):
        for row, chosen in step.items():
            gained[row].append(chosen.log_probability)
            if chosen.ending == "end":
                complete[row] = True
            else:
                tokens[row].append(chosen.token)
    return [
        [Hypothesis(text, sum(gains), sum(gains) / len(gains) ** length_penalty, ended, gains)]
        for text, gains, ended in zip(tokens, gained, complete, strict=True)
    ]
