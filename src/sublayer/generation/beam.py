"""Beam search (section 6.1): the `beam` best beginnings are kept at every step.

    score(y) = log P(y | x) / |y| ** length_penalty

where |y| counts the end marker. At each step the best 2 * beam continuations of a sentence are looked at, best first
((1 + e) * beam where e tokens end a text, so that enough remain that do not): one that ends, and is among the first
`beam`, is a finished text; of the others the first `beam` go on. A sentence is done as soon as `beam` texts have
finished (so a beam of one is greedy search), or at its limit, where what is running counts as it stands. Without
`early_stopping` it goes on while the best of what is running, at its present length, would score better than the worst
of the best `beam` finished texts (`transformers`' own default).

Constraints change the log-probabilities that scores are made of; they are not normalized again (as in `transformers`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, cast

import torch
from torch import Tensor

from sublayer.generation.constraints import Constraint, TokenHistory, constrain, nothing_left
from sublayer.generation.finite import any_nan, refuse
from sublayer.generation.request import DecodeRequest, Hypothesis
from sublayer.generation.top import top
from sublayer.models.backend import DecoderBackend, S, State, ranked

# A beginning shares its own beginning with others: (what stood before, last token, its log-probability), None at the
# start.
Path: TypeAlias = "tuple[Path, int, float] | None"


@torch.no_grad()
def beam_search(
    model: DecoderBackend[S],
    source: Tensor,
    source_lengths: Tensor | None,
    request: DecodeRequest,
    *,
    beam: int,
    length_penalty: float,
    constraints: Sequence[Constraint] = (),
    early_stopping: bool = True,
) -> list[list[Hypothesis]]:
    """Up to `beam` texts for each sentence, best first.

    Shape: source [B, S] int64, source_lengths [B].

    Raises:
        InputError: the constraints leave all beginnings of a sentence without a token.
    """
    state = model.start(source, source_lengths, num_beams=beam, capacity=max(request.steps))
    device = source.device
    sentences = [_Sentence(limit, beam, length_penalty, early_stopping) for limit in request.steps]
    alive = list(range(len(sentences)))
    feed = torch.tensor(request.first, device=device).repeat_interleave(beam).unsqueeze(1)
    history = None
    if constraints:
        history = TokenHistory([one for one in request.prompts for _ in range(beam)], max(request.steps), device)
    looked_at = max(2, 1 + len(request.end_ids)) * beam
    # Every hypothesis begins alike: all but the first are out of the race until they differ.
    scores = torch.full((len(alive), beam), float("-inf"), device=device)
    scores[:, 0] = 0.0
    while True:
        best = None if constraints else ranked(model, feed, state, looked_at)
        if best is None:
            logits = model.step(feed, state)[:, -1].float()
            gained, own, candidates = _best_of_rows(logits, looked_at, constraints, history)
        else:
            gained, candidates = best
            own = gained
        totals, origins, tokens, gains = _continuations(gained, own, candidates, scores, looked_at)
        if any(map(any_nan, gains)):
            refuse(model, source, source_lengths, request, sentences[alive[0]].length)
        rows: list[int] = []
        next_tokens: list[int] = []
        next_scores: list[list[float]] = []
        staying: list[int] = []
        for place, index in enumerate(alive):
            going_on = sentences[index].advance(
                totals[place], origins[place], tokens[place], gains[place], request.end_ids
            )
            rows += [place * beam + origin for origin, _, _ in going_on]
            next_tokens += [token for _, token, _ in going_on]
            next_scores.append([total for _, _, total in going_on])
            if not sentences[index].done:
                staying.append(place)
        if not staying:
            break
        feed = torch.tensor(next_tokens, device=device).unsqueeze(1)
        scores = torch.tensor(next_scores, device=device)
        if rows != list(range(len(rows))):
            _reorder(state, history, torch.tensor(rows, device=device))
        if history is not None:
            history.append(feed.squeeze(1))
        # Dropping a sentence copies the cache, so it waits until a quarter are done.
        if len(staying) <= 0.75 * len(alive):
            kept = torch.tensor(staying, device=device)
            state.keep(kept)
            places = (kept.unsqueeze(1) * beam + torch.arange(beam, device=device)).flatten()
            feed, scores = feed[places], scores[kept]
            if history is not None:
                history.select(places)
            alive = [alive[place] for place in staying]
    return [sentence.ranked() for sentence in sentences]


def _best_of_rows(
    logits: Tensor, count: int, constraints: Sequence[Constraint], history: TokenHistory | None
) -> tuple[Tensor, Tensor, Tensor]:
    """What the best continuations of each row gain under the constraints and without, and their tokens.

    Shape: logits [B * beam, V] -> [B * beam, count at most] each.
    """
    count = min(count, logits.shape[-1])
    # On a CPU the log-softmax of everything, a single kernel, is twice as fast as the logsumexp that would do.
    every = logits.log_softmax(dim=-1)
    if constraints:
        gained, token = constrain(every, constraints, history).topk(count, dim=-1)
        return gained, every.gather(1, token), token
    _, token = top(logits, count)
    own = every.gather(1, token)
    return own, own, token


def _continuations(
    gained: Tensor, own: Tensor, token: Tensor, scores: Tensor, count: int
) -> tuple[list[list[float]], list[list[int]], list[list[int]], list[list[float]]]:
    """The best continuations of each sentence, best first: total score, hypothesis, token, and its log-probability.

    The best of a sentence are among the best of its rows.

    Shape: gained, own, token [B * beam, n], scores [B, beam].
    """
    batch, count_a_row = scores.shape[0], token.shape[1]
    offered = (scores.view(-1, 1) + gained).view(batch, -1)
    total, place = offered.topk(min(count, offered.shape[1]), dim=-1)
    return (
        cast("list[list[float]]", total.tolist()),
        cast("list[list[int]]", (place // count_a_row).tolist()),
        cast("list[list[int]]", token.view(batch, -1).gather(1, place).tolist()),
        cast("list[list[float]]", own.view(batch, -1).gather(1, place).tolist()),
    )


def _reorder(state: State, history: TokenHistory | None, rows: Tensor) -> None:
    state.reorder(rows)
    if history is not None:
        history.select(rows)


@dataclass
class _Sentence:
    """One sentence's running beginnings and finished texts."""

    limit: int
    beam: int
    length_penalty: float
    early_stopping: bool = True
    paths: list[Path] = field(default_factory=lambda: list[Path]())
    finished: list[Hypothesis] = field(default_factory=lambda: list[Hypothesis]())
    length: int = 0
    done: bool = False

    def advance(
        self,
        totals: list[float],
        origins: list[int],
        tokens: list[int],
        gains: list[float],
        end_ids: frozenset[int],
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
        longer: list[Path] = []
        for rank, (total, origin, token, gain) in enumerate(zip(totals, origins, tokens, gains, strict=True)):
            if total == float("-inf"):
                continue
            if token in end_ids or last:
                if rank < self.beam:
                    self._finish((paths[origin], token, gain), total, complete=token in end_ids)
            elif len(going_on) < self.beam:
                going_on.append((origin, token, total))
                longer.append((paths[origin], token, gain))
        self.done = last or not going_on or self._settled(going_on[0][2])
        self.paths = longer
        # A tiny vocabulary may offer fewer than `beam`: the missing ones stay out of the race.
        while len(going_on) < self.beam:
            self.paths.append(None)
            going_on.append((0, 0, float("-inf")))
        return going_on

    def _settled(self, best: float) -> bool:
        """Whether no more texts are looked for; `best` is the highest total of what is running."""
        if len(self.finished) < self.beam:
            return False
        if self.early_stopping:
            return True
        worst = sorted((text.score for text in self.finished), reverse=True)[self.beam - 1]
        return best / self.length**self.length_penalty <= worst

    def ranked(self) -> list[Hypothesis]:
        if not self.finished:
            raise nothing_left()
        return sorted(self.finished, key=lambda hypothesis: -hypothesis.score)[: self.beam]

    def _finish(self, path: Path, total: float, *, complete: bool) -> None:
        tokens: list[int] = []
        gains: list[float] = []
        while path is not None:
            path, token, gain = path
            tokens.append(token)
            gains.append(gain)
        tokens, gains = tokens[::-1], gains[::-1]
        score = total / self.length**self.length_penalty
        self.finished.append(Hypothesis(tokens[:-1] if complete else tokens, sum(gains), score, complete, gains))
