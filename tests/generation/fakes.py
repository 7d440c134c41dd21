"""Models that are tables, and searches that are slow and plain: what the real search is held against."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sublayer.generation.loop import Choice, Step, decode
from sublayer.generation.model_steps import ModelSteps
from sublayer.generation.request import DecodeRequest, Hypothesis
from sublayer.models import EncoderDecoder

Scorer = Callable[[tuple[int, ...]], list[float]]
"""Tokens so far -> log-probability of each next token."""


def decode_from(
    model: Any,
    source: Tensor,
    lengths: Tensor | None,
    request: DecodeRequest,
    choose: Choice,
    *,
    samples: int = 1,
    **options: Any,
) -> Iterator[Step]:
    """`decode` with a decoder backend, which is started with these sources."""
    state = model.start(source, lengths, num_beams=samples, capacity=max(request.steps))
    return decode(ModelSteps(model, source.device), state, request, choose, samples=samples, **options)


@dataclass
class TableState:
    """Remembers what each row was fed, and refuses what the contract forbids."""

    sentences: list[tuple[int, ...]]
    num_beams: int
    capacity: int
    fed: list[list[int]] = field(default_factory=list)
    length: int = 0

    def reorder(self, rows: Tensor) -> None:
        index = rows.tolist()
        assert len(index) == len(self.fed)
        for to, origin in enumerate(index):
            assert to // self.num_beams == origin // self.num_beams, "a row went on from another sentence's"
        self.fed = [list(self.fed[row]) for row in index]

    def keep(self, sentences: Tensor) -> None:
        places = sentences.tolist()
        assert len(set(places)) == len(places)
        self.fed = [self.fed[place * self.num_beams + row] for place in places for row in range(self.num_beams)]
        self.sentences = [self.sentences[place] for place in places]

    def truncate(self, length: int) -> None:
        self.fed = [row[:length] for row in self.fed]
        self.length = length


@dataclass
class Table:
    """A model that is no network: the logits after any prefix are drawn once, and depend on all of it.

    order: how many of the last tokens count; unset means all, 1 makes a Markov chain. end_bias: added to the logit of
    `end_id`. Logits are not normalized, so that whoever forgets to normalize is found out.
    """

    vocab_size: int
    seed: int
    order: int | None = None
    end_id: int = 1
    end_bias: float = 0.0
    steps: int = 0

    def logits(self, source: tuple[int, ...], prefix: tuple[int, ...]) -> list[float]:
        seen = prefix if self.order is None else prefix[-self.order :]
        drawn = random.Random(f"{self.seed} {source} {seen}")
        logits = [drawn.gauss(drawn.random(), 1.5) for _ in range(self.vocab_size)]
        logits[self.end_id] += self.end_bias
        return logits

    def scorer(self, source: tuple[int, ...]) -> Scorer:
        def score(prefix: tuple[int, ...]) -> list[float]:
            logits = self.logits(source, prefix)
            total = math.log(sum(map(math.exp, logits)))
            return [logit - total for logit in logits]

        return score

    def start(
        self, source: Tensor, source_lengths: Tensor | None = None, *, num_beams: int = 1, capacity: int | None = None
    ) -> TableState:
        lengths = [source.shape[1]] * len(source) if source_lengths is None else source_lengths.tolist()
        sentences = [tuple(row[:length]) for row, length in zip(source.tolist(), lengths, strict=True)]
        assert capacity is not None, "search knows how far it goes"
        return TableState(sentences, num_beams, capacity, [[] for _ in range(len(sentences) * num_beams)])

    def step(self, tokens: Tensor, state: TableState) -> Tensor:
        assert tokens.shape == (len(state.sentences) * state.num_beams, 1)
        self.steps += 1
        state.length += 1
        assert state.length <= state.capacity
        for fed, token in zip(state.fed, tokens.flatten().tolist(), strict=True):
            assert 0 <= token < self.vocab_size
            fed.append(token)
        return torch.tensor(
            [[self.logits(state.sentences[row // state.num_beams], tuple(fed))] for row, fed in enumerate(state.fed)]
        )


@dataclass
class LanguageTable(Table):
    """A decoder-only model that is no network: what it is started with and what it is fed are one text.

    It takes several tokens a step, as speculation does. near: a model that this one is like, `likeness` of its logits.
    """

    max_length: int = 64
    near: LanguageTable | None = None
    likeness: float = 0.5
    memo: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

    @property
    def config(self) -> LanguageTable:
        return self

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def eval(self) -> LanguageTable:
        return self

    def after(self, text: tuple[int, ...]) -> Tensor:
        """The logits of what follows `text`: [V]."""
        seen = text if self.order is None else text[-self.order :]
        if seen not in self.memo:
            logits = torch.tensor(self.logits((), seen))
            if self.near is not None:
                logits = (1 - self.likeness) * logits + self.likeness * self.near.after(text)
            self.memo[seen] = logits
        return self.memo[seen]

    def step(self, tokens: Tensor, state: TableState) -> Tensor:
        assert tokens.shape[0] == len(state.sentences) * state.num_beams
        self.steps += 1
        state.length += tokens.shape[1]
        assert state.length <= state.capacity
        rows: list[Tensor] = []
        for row, (fed, new) in enumerate(zip(state.fed, tokens.tolist(), strict=True)):
            source = state.sentences[row // state.num_beams]
            assert len(source) + state.length <= self.max_length
            rows.append(torch.stack([self.after((*source, *fed, *new[: at + 1])) for at in range(len(new))]))
            fed += new
        return torch.stack(rows)


def request_of(start: int, end: int, steps: list[int]) -> DecodeRequest:
    """The same first token for every sentence, and one that ends."""
    return DecodeRequest([start] * len(steps), frozenset({end}), steps)


def scorer_of(model: EncoderDecoder, source: Tensor) -> Scorer:
    """The model as a function of the prefix, recomputed from the beginning each time."""

    def score(prefix: tuple[int, ...]) -> list[float]:
        with torch.no_grad():
            return model(source, None, torch.tensor([prefix]))[0, -1].double().log_softmax(-1).tolist()

    return score


def all_hypotheses(score: Scorer, *, start: int, end: int, limit: int, penalty: float) -> list[Hypothesis]:
    """Every translation there is, best first."""
    found: list[Hypothesis] = []
    vocabulary = range(len(score((start,))))
    others = [token for token in vocabulary if token != end]
    for size in range(limit + 1):
        for tokens in itertools.product(others, repeat=size):
            complete = size < limit
            out = (*tokens, end) if complete else tokens
            total = sum(score((start, *out[:at]))[token] for at, token in enumerate(out))
            found.append(Hypothesis(list(tokens), total, total / len(out) ** penalty, complete))
    return sorted(found, key=lambda hypothesis: -hypothesis.score)


def plain_beam(score: Scorer, *, start: int, end: int, limit: int, beam: int, penalty: float) -> list[Hypothesis]:
    """Beam search by the rules that `sublayer.generation.beam` documents, and by nothing else."""
    running: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    finished: list[Hypothesis] = []
    for length in range(1, limit + 1):
        continuations = [
            (total + gained, path, token)
            for total, path in running
            for token, gained in enumerate(score((start, *path)))
        ]
        continuations.sort(key=lambda continuation: -continuation[0])
        running = []
        for rank, (total, path, token) in enumerate(continuations[: 2 * beam]):
            if token == end or length == limit:
                if rank < beam:
                    tokens = list(path) if token == end else [*path, token]
                    finished.append(Hypothesis(tokens, total, total / length**penalty, token == end))
            elif len(running) < beam:
                running.append((total, (*path, token)))
        if len(finished) >= beam or not running:
            break
    return sorted(finished, key=lambda hypothesis: -hypothesis.score)[:beam]


def plain_greedy(score: Scorer, *, start: int, end: int, limit: int) -> Hypothesis:
    """At every step the most probable token."""
    tokens: list[int] = []
    total = 0.0
    while len(tokens) < limit:
        scores = score((start, *tokens))
        token = max(range(len(scores)), key=scores.__getitem__)
        total += scores[token]
        if token == end:
            return Hypothesis(tokens, total, total, True)
        tokens.append(token)
    return Hypothesis(tokens, total, total, False)


def assert_same(found: list[Hypothesis], expected: list[Hypothesis]) -> None:
    """Equal tokens in equal order; numbers to what float32 allows, because search adds up in it."""
    assert [h.tokens for h in found] == [h.tokens for h in expected]
    assert [h.complete for h in found] == [h.complete for h in expected]
    for mine, other in zip(found, expected, strict=True):
        assert math.isclose(mine.log_probability, other.log_probability, rel_tol=1e-5, abs_tol=1e-5)
        assert math.isclose(mine.score, other.score, rel_tol=1e-5, abs_tol=1e-5)
