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

from sublayer.generation.batch import Batch, Offer, Steps, Text
from sublayer.generation.finite import NotFinite, any_nan, refuse
from sublayer.generation.request import DecodeRequest, Hypothesis, nothing_left

if TYPE_CHECKING:
    from torch import Tensor

    from sublayer.generation.constraints import Constraint
    from sublayer.models.backend import DecoderBackend, S

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

# A beginning shares its own beginning with others: (what stood before, last token, its log-probability), None at the
# start.
Path: TypeAlias = "tuple[Path, int, float] | None"


@dataclass(frozen=True)
class BeamSearch:
    """The search that keeps the `beam` best beginnings of each text.

    end_ids: the tokens that end a text. length_penalty, early_stopping: as above.
    """

    beam: int
    length_penalty: float
    end_ids: frozenset[int]
    early_stopping: bool = True
    constraints: tuple[Constraint, ...] = ()

    @property
    def rows(self) -> int:
        return self.beam

    @property
    def looked_at(self) -> int:
        """Continuations of a text that are looked at in a step."""
        return max(2, 1 + len(self.end_ids)) * self.beam

    @property
    def ranks(self) -> int | None:
        return None if self.constraints else self.looked_at

    def advance(self, offer: Offer, texts: Sequence[BeamText]) -> None:
        if offer.ranked is None:
            assert offer.logits is not None
            gained, own, candidates = self._best_of_rows(offer.logits, texts)
        else:
            gained, candidates = offer.ranked
            own = gained
        scores = np.array([text.totals for text in texts], np.float32)
        found = _continuations(gained, own, candidates, scores, self.looked_at)
        for text, (totals, origins, tokens, gains) in zip(texts, found, strict=True):
            if not text.done:
                text.advance(totals, origins, tokens, gains)

    def _best_of_rows(self, logits: Tensor, texts: Sequence[BeamText]) -> tuple[Floats, Floats, Integers]:
        """What the best continuations of each row gain under the constraints and without, and their tokens.

        Shape: logits [B * beam, V] -> [B * beam, count at most] each.
        """
        from sublayer.generation.constraints import TokenHistory, constrain
        from sublayer.generation.top import top

        count = min(self.looked_at, logits.shape[-1])
        # On a CPU the log-softmax of everything, a single kernel, is twice as fast as the logsumexp that would do.
        every = logits.log_softmax(dim=-1)
        if self.constraints:
            rows = [row for text in texts for row in text.so_far()]
            history = TokenHistory(rows, [text.length for text in texts for _ in range(self.beam)], logits.device)
            gained, token = constrain(every, self.constraints, history).topk(count, dim=-1)
        else:
            _, token = top(logits, count)
            gained = None
        own = every.gather(1, token).numpy(force=True)
        return own if gained is None else gained.numpy(force=True), own, token.numpy(force=True)


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

    from sublayer.generation.model_steps import ModelSteps

    search = BeamSearch(beam, length_penalty, request.end_ids, early_stopping, tuple(constraints))
    with torch.no_grad():
        steps = ModelSteps(model, source.device)
        state = model.start(source, source_lengths, num_beams=beam, capacity=max(request.steps))
        try:
            return best_texts(steps, state, search, request)
        except NotFinite as error:
            refuse(model, source, source_lengths, request, error.step)


def best_texts(steps: Steps[Any], state: Any, search: BeamSearch, request: DecodeRequest) -> list[list[Hypothesis]]:
    """As `beam_search`.

    Args:
        state: what `steps.start` made of the sources, with `search.beam` rows each.

    Raises:
        NotFinite: the model's numbers are not finite.
    """
    batch = Batch(steps, rows=search.beam)
    texts = [BeamText(search, prompt, limit) for prompt, limit in zip(request.prompts, request.steps, strict=True)]
    batch.join(state, texts)
    while batch.texts:
        batch.step()
        for text in batch.texts:
            if text.error is not None:
                raise text.error
        # Dropping a sentence copies the cache, so it waits until a quarter are done.
        batch.drop(most=0.75)
    return [text.ranked() for text in texts]


def _continuations(
    gained: Floats, own: Floats, token: Integers, scores: Floats, count: int
) -> list[tuple[list[float], list[int], list[int], list[float]]]:
    """The best continuations of each sentence, best first: total scores, hypotheses, tokens, their log-probabilities.

    The best of a sentence are among the best of its rows; of equal ones the first comes first.

    Shape: gained, own, token [B * beam, n], scores [B, beam].
    """
    batch, each = scores.shape[0], token.shape[1]
    offered = (scores.reshape(-1, 1) + gained).reshape(batch, -1)
    place = _highest(offered, count)
    # What `take_along_axis` does, which takes longer over its arguments than over a few beams.
    sentence: Integers = np.arange(batch, dtype=np.int64)[:, None]
    taken = (part.reshape(batch, -1)[sentence, place] for part in (token, own))
    found = offered[sentence, place], place // each, *taken
    return list(zip(*(part.tolist() for part in found), strict=True))


def _highest(offered: Floats, count: int) -> Integers:
    """Where the highest of each row stand, highest first. Shape: [B, n] -> [B, count at most]."""
    if offered.shape[1] <= 4 * count:
        return np.argsort(-offered, axis=1, kind="stable")[:, :count]
    some = np.sort(np.argpartition(-offered, count, axis=1)[:, :count], axis=1)
    order = np.argsort(-np.take_along_axis(offered, some, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1)


@dataclass(eq=False)
class BeamText(Text):
    """One sentence's running beginnings and finished texts.

    totals: the scores of the beginnings. length: tokens of each.
    """

    search: BeamSearch
    finished: list[Hypothesis] = field(default_factory=lambda: list[Hypothesis]())
    length: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        beam = self.search.beam
        # Every hypothesis begins alike: all but the first are out of the race until they differ.
        self.totals = [0.0] + [float("-inf")] * (beam - 1)
        self.paths: list[Path] = [None] * beam

    def so_far(self) -> list[list[int]]:
        """The prompt and the tokens since, of each beginning."""
        texts: list[list[int]] = []
        for path, fed in zip(self.paths, self.feed, strict=True):
            tokens = _along(path)[0]
            # A beginning that is out of the race has no path of its own.
            texts.append([*self.prompt, *(tokens if len(tokens) == self.length else [fed] * self.length)])
        return texts

    def advance(self, totals: list[float], origins: list[int], tokens: list[int], gains: list[float]) -> None:
        """Take one step's continuations, best first."""
        if any_nan(gains):
            self.fail(NotFinite(self.length))
            return
        self.length += 1
        last = self.length >= self.limit
        beam, end_ids = self.search.beam, self.search.end_ids
        going_on: list[tuple[int, int, float]] = []
        longer: list[Path] = []
        for rank, (total, origin, token, gain) in enumerate(zip(totals, origins, tokens, gains, strict=True)):
            if total == float("-inf"):
                continue
            if token in end_ids or last:
                if rank < beam:
                    self._finish((self.paths[origin], token, gain), total, complete=token in end_ids)
            elif len(going_on) < beam:
                going_on.append((origin, token, total))
                longer.append((self.paths[origin], token, gain))
        self.done = last or not going_on or self._settled(going_on[0][2])
        # A tiny vocabulary may offer fewer than `beam`: the missing ones stay out of the race.
        missing = beam - len(going_on)
        self.paths = [*longer, *[None] * missing]
        self.origins = [origin for origin, _, _ in going_on] + [0] * missing
        self.feed = [token for _, token, _ in going_on] + [0] * missing
        self.totals = [total for _, _, total in going_on] + [float("-inf")] * missing

    def ranked(self) -> list[Hypothesis]:
        """What was found, best first.

        Raises:
            InputError: nothing was.
        """
        if not self.finished:
            raise nothing_left()
        return sorted(self.finished, key=lambda hypothesis: -hypothesis.score)[: self.search.beam]

    def _settled(self, best: float) -> bool:
        """Whether no more texts are looked for; `best` is the highest total of what is running."""
        if len(self.finished) < self.search.beam:
            return False
        if self.search.early_stopping:
            return True
        worst = sorted((text.score for text in self.finished), reverse=True)[self.search.beam - 1]
        return best / self.length**self.search.length_penalty <= worst

    def _finish(self, path: Path, total: float, *, complete: bool) -> None:
        tokens, gains = _along(path)
        score = total / self.length**self.search.length_penalty
        self.finished.append(Hypothesis(tokens[:-1] if complete else tokens, sum(gains), score, complete, gains))


def _along(path: Path) -> tuple[list[int], list[float]]:
    """The tokens of a beginning and their log-probabilities."""
    tokens: list[int] = []
    gains: list[float] = []
    while path is not None:
        path, token, gain = path
        tokens.append(token)
        gains.append(gain)
    return tokens[::-1], gains[::-1]
