"""Greedy search: at every step the most probable token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sublayer.generation.batch import Batch
from sublayer.generation.loop import Choosing, Step, decode, most_probable, one_step, texts_of
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

    with torch.no_grad():
        made = decode(model, source, source_lengths, request, most_probable, constraints=constraints)
        return _texts(made, request, length_penalty)


def greedy_texts(
    batch: Batch[Any], state: Any, request: DecodeRequest, *, length_penalty: float = 0.0
) -> list[list[Hypothesis]]:
    """Search with an empty batch; as `greedy`.

    Args:
        state: of the sources, with a row each.

    Raises:
        NotFinite: the model's numbers are not finite.
    """
    texts = texts_of(request, Choosing(most_probable))
    batch.join(state, texts)

    def steps() -> Iterator[Step]:
        while batch.texts:
            yield one_step(batch, texts)
            batch.drop()

    return _texts(steps(), request, length_penalty)


def _texts(made: Iterable[Step], request: DecodeRequest, length_penalty: float) -> list[list[Hypothesis]]:
    tokens: list[list[int]] = [[] for _ in request.first]
    gained: list[list[float]] = [[] for _ in request.first]
    complete = [False for _ in request.first]
    for step in made:
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
