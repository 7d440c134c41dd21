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
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sublayer.generation.batch import Batch, Places, Ranked, Scores
from sublayer.generation.request import DecodeRequest, Hypothesis, nothing_left

if TYPE_CHECKING:
    from torch import Tensor

    from sublayer.generation.constraints import Constraint
    from sublayer.models.backend import DecoderBackend, S

# A beginning shares its own beginning with others: (what stood before, last token, its log-probability), None at the
# start.
Path: TypeAlias = "tuple[Path, int, float] | None"


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
    import torch

    from sublayer.generation.model_batch import ModelBatch

    with torch.no_grad():
        batch = ModelBatch(model, source, source_lengths, request, num_beams=beam, constraints=constraints)
        return best_texts(batch, request, beam=beam, length_penalty=length_penalty, early_stopping=early_stopping)


def best_texts(
    batch: Batch, request: DecodeRequest, *, beam: int, length_penalty: float, early_stopping: bool = True
) -> list[list[Hypothesis]]:
    """Search a batch that has begun with `beam` rows a sentence; as `beam_search`."""
    sentences = [_Sentence(limit, beam, length_penalty, early_stopping) for limit in request.steps]
    alive = list(range(len(sentences)))
    fed: list[int] = [first for first in request.first for _ in range(beam)]
    looked_at = max(2, 1 + len(request.end_ids)) * beam
    # Every hypothesis begins alike: all but the first are out of the race until they differ.
    scores = np.full((len(alive), beam), -np.inf, np.float32)
    scores[:, 0] = 0.0
    while True:
        ranked = batch.rank(fed, looked_at)
        if np.isnan(ranked.own).any():
            batch.refuse(sentences[alive[0]].length)
        totals, origins, tokens, gains = _continuations(ranked, scores, looked_at)
        rows: list[int] = []
        following: list[int] = []
        next_scores: list[list[float]] = []
        staying: list[int] = []
        for place, index in enumerate(alive):
            going_on = sentences[index].advance(
                totals[place], origins[place], tokens[place], gains[place], request.end_ids
            )
            rows += [place * beam + origin for origin, _, _ in going_on]
            following += [token for _, token, _ in going_on]
            next_scores.append([total for _, _, total in going_on])
            if not sentences[index].done:
                staying.append(place)
        if not staying:
            break
        scores = np.array(next_scores, np.float32)
        if rows != list(range(len(rows))):
            batch.reorder(rows)
        # Dropping a sentence copies the cache, so it waits until a quarter are done.
        if len(staying) <= 0.75 * len(alive):
            batch.keep(staying)
            following = [token for place in staying for token in following[place * beam : (place + 1) * beam]]
            scores = scores[staying]
            alive = [alive[place] for place in staying]
        fed = following
    return [sentence.ranked() for sentence in sentences]


def _continuations(
    ranked: Ranked, scores: Scores, count: int
) -> tuple[list[list[float]], list[list[int]], list[list[int]], list[list[float]]]:
    """The best continuations of each sentence, best first: total score, hypothesis, token, and its log-probability.

    The best of a sentence are among the best of its rows; of equal ones the first comes first.

    Shape: scores [B, beam].
    """
    batch, each = scores.shape[0], ranked.tokens.shape[1]
    offered = (scores.reshape(-1, 1) + ranked.gained).reshape(batch, -1)
    place = _highest(offered, count)

    def best(numbers: NDArray[Any]) -> Any:
        return np.take_along_axis(numbers.reshape(batch, -1), place, axis=1).tolist()

    return best(offered), (place // each).tolist(), best(ranked.tokens), best(ranked.own)


def _highest(offered: Scores, count: int) -> Places:
    """Where the highest of each row stand, highest first. Shape: [B, n] -> [B, count at most]."""
    if offered.shape[1] <= 4 * count:
        return np.argsort(-offered, axis=1, kind="stable")[:, :count]
    some = np.sort(np.argpartition(-offered, count, axis=1)[:, :count], axis=1)
    order = np.argsort(-np.take_along_axis(offered, some, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1)


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
