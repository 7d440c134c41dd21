"""Beam search (section 6.1): the `beam` best beginnings are kept at every step.

    score(y) = log P(y | x) / |y| ** length_penalty

where |y| counts the end marker. At each step the best 2 * beam continuations of a sentence are looked at, best first:
one that ends, and is among the first `beam`, is a finished translation; of the others the first `beam` go on. A
sentence is done as soon as `beam` translations have finished (so a beam of one is greedy search), or at its limit,
where what is running counts as it stands.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias, cast

import torch
from torch import Tensor

from sublayer.generation.step import Hypothesis, Limits, S, State, Stepper

# A beginning shares its own beginning with others: (what stood before, last token), None at the start.
Path: TypeAlias = "tuple[Path, int] | None"


@torch.no_grad()
def beam_search(
    model: Stepper[S],
    source: Tensor,
    source_lengths: Tensor | None,
    limits: Limits,
    *,
    beam: int,
    length_penalty: float,
) -> list[list[Hypothesis]]:
    """Up to `beam` translations of each sentence, best first.

    Shape: source [B, S] int64, source_lengths [B].
    """
    state = model.start(source, source_lengths, rows=beam, capacity=max(limits.steps))
    device = source.device
    sentences = [_Sentence(limit, beam, length_penalty) for limit in limits.steps]
    alive = list(range(len(sentences)))
    feed = torch.full((len(alive) * beam, 1), limits.start_id, dtype=torch.int64, device=device)
    # Every hypothesis begins alike: all but the first are out of the race until they differ.
    scores = torch.full((len(alive), beam), float("-inf"), device=device)
    scores[:, 0] = 0.0
    while True:
        logits = model.step(feed, state)[:, -1].float()
        totals, origins, tokens = _continuations(logits, scores, 2 * beam)
        rows: list[int] = []
        next_tokens: list[int] = []
        next_scores: list[list[float]] = []
        staying: list[int] = []
        for place, index in enumerate(alive):
            going_on = sentences[index].advance(totals[place], origins[place], tokens[place], limits.end_id)
            rows += [place * beam + origin for origin, _, _ in going_on]
            next_tokens += [token for _, token, _ in going_on]
            next_scores.append([total for _, _, total in going_on])
            if not sentences[index].done:
                staying.append(place)
        if not staying:
            break
        feed = torch.tensor(next_tokens, device=device).unsqueeze(1)
        scores = torch.tensor(next_scores, device=device)
        _reorder(state, rows, device)
        # Dropping a sentence copies the cache, so it waits until a quarter are done.
        if len(staying) <= 0.75 * len(alive):
            kept = torch.tensor(staying, device=device)
            state.keep(kept)
            feed = feed.view(len(alive), beam)[kept].view(-1, 1)
            scores = scores[kept]
            alive = [alive[place] for place in staying]
    return [sentence.ranked() for sentence in sentences]


def _continuations(
    logits: Tensor, scores: Tensor, count: int
) -> tuple[list[list[float]], list[list[int]], list[list[int]]]:
    """The best continuations of each sentence, best first: total log-probability, hypothesis, token.

    Shape: logits [B * beam, V], scores [B, beam].
    """
    batch = scores.shape[0]
    vocabulary = logits.shape[-1]
    # The best of a sentence are among the best of its rows, which are found without the log-softmax of everything.
    best, token = logits.topk(min(count, vocabulary), dim=-1)
    gained = best - logits.logsumexp(dim=-1, keepdim=True)
    offered = (scores.view(-1, 1) + gained).view(batch, -1)
    total, place = offered.topk(min(count, offered.shape[1]), dim=-1)
    width = best.shape[1]
    return (
        cast("list[list[float]]", total.tolist()),
        cast("list[list[int]]", (place // width).tolist()),
        cast("list[list[int]]", token.view(batch, -1).gather(1, place).tolist()),
    )


def _reorder(state: State, rows: list[int], device: torch.device) -> None:
    if rows != list(range(len(rows))):
        state.reorder(torch.tensor(rows, device=device))


@dataclass
class _Sentence:
    """One sentence's running beginnings and finished translations."""

    limit: int
    beam: int
    length_penalty: float
    paths: list[Path] = field(default_factory=lambda: list[Path]())
    finished: list[Hypothesis] = field(default_factory=lambda: list[Hypothesis]())
    length: int = 0
    done: bool = False

    def advance(
        self, totals: list[float], origins: list[int], tokens: list[int], end_id: int
    ) -> list[tuple[int, int, float]]:
        """Take one step's continuations; return `beam` of (hypothesis, token, total) that go on.

        A sentence that is done returns its rows unchanged: they are computed until the batch is next made smaller.
        """
        if self.done:
            return [(row, 0, 0.0) for row in range(self.beam)]
        paths = self.paths or [None] * self.beam
        self.length += 1
        last = self.length >= self.limit
        going_on: list[tuple[int, int, float]] = []
        for rank, (total, origin, token) in enumerate(zip(totals, origins, tokens, strict=True)):
            if total == float("-inf"):
                continue
            if token == end_id or last:
                if rank < self.beam:
                    self._finish(paths[origin], token, total, complete=token == end_id)
            elif len(going_on) < self.beam:
                going_on.append((origin, token, total))
        self.done = last or len(self.finished) >= self.beam or not going_on
        self.paths = [(paths[origin], token) for origin, token, _ in going_on]
        # A tiny vocabulary may offer fewer than `beam`: the missing ones stay out of the race.
        while len(going_on) < self.beam:
            self.paths.append(None)
            going_on.append((0, 0, float("-inf")))
        return going_on

    def ranked(self) -> list[Hypothesis]:
        return sorted(self.finished, key=lambda hypothesis: -hypothesis.score)[: self.beam]

    def _finish(self, path: Path, token: int, total: float, *, complete: bool) -> None:
        tokens = [] if complete else [token]
        while path is not None:
            path, before = path
            tokens.append(before)
        score = total / self.length**self.length_penalty
        self.finished.append(Hypothesis(tokens[::-1], total, score, complete))
