"""Greedy search: at every step the most probable token."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from sublayer.generation.step import Hypothesis, Limits, S, Stepper
from sublayer.generation.top import top


def greedy(
    model: Stepper[S], source: Tensor, source_lengths: Tensor | None, limits: Limits, *, length_penalty: float = 0.0
) -> list[list[Hypothesis]]:
    """The greedy translation of each sentence, in a list of its own (as beam search gives its n best).

    Sentences that have ended leave the batch. `length_penalty` only enters the score that is reported.

    Shape: source [B, S] int64, source_lengths [B].
    """
    state = model.start(source, source_lengths, rows=1, capacity=max(limits.steps))
    device = source.device
    alive = list(range(source.shape[0]))
    tokens: list[list[int]] = [[] for _ in alive]
    sums = [0.0 for _ in alive]
    complete = [False for _ in alive]
    feed = torch.full((len(alive), 1), limits.start_id, dtype=torch.int64, device=device)
    while True:
        # On a CPU the log-softmax of everything, a single kernel, is twice as fast as the logsumexp that would do.
        log_probability, chosen = top(model.step(feed, state)[:, -1].float().log_softmax(dim=-1), 1)
        gained = cast("list[float]", log_probability.view(-1).tolist())
        picked = cast("list[int]", chosen.view(-1).tolist())
        staying: list[int] = []
        for row, (sentence, token) in enumerate(zip(alive, picked, strict=True)):
            sums[sentence] += gained[row]
            if token == limits.end_id:
                complete[sentence] = True
                continue
            tokens[sentence].append(token)
            if len(tokens[sentence]) < limits.steps[sentence]:
                staying.append(row)
        if not staying:
            break
        feed = chosen
        if len(staying) < len(alive):
            rows = torch.tensor(staying, device=device)
            state.keep(rows)
            feed = feed[rows]
            alive = [alive[row] for row in staying]
    return [
        [Hypothesis(t, s, s / (len(t) + ended) ** length_penalty, ended)]
        for t, s, ended in zip(tokens, sums, complete, strict=True)
    ]
