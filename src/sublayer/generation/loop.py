"""Greedy search and sampling: at every step one token is chosen for each text.

`decode` is a generator that yields the tokens of every step, so that a text can be streamed. The loop itself, which
feeds tokens and drops what is finished, is that of all searches (`batch.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Literal, Protocol, TypeAlias, cast

import torch
from torch import Tensor

from sublayer.errors import SublayerError
from sublayer.generation.batch import Batch, Offer
from sublayer.generation.constraints import NEVER, Constraint, TokenHistory, constrain, nothing_left
from sublayer.generation.finite import NotFinite, any_nan, is_finite, refuse
from sublayer.generation.request import DecodeRequest
from sublayer.generation.top import top
from sublayer.generation.window import window_start
from sublayer.models.backend import DecoderBackend, S

Ending: TypeAlias = Literal["end", "stop", "length"]
"""Why a text ended: an end token, the caller's word (a stop string), or its limit."""


Best: TypeAlias = tuple[tuple[int, float], ...]
"""The most probable tokens, and their log-probabilities."""


@dataclass(frozen=True)
class Chosen:
    """The token that a text went on with.

    log_probability: natural log, of the model's distribution before constraints and sampling changed it; 0 unless asked
    for. ending: why the text ends with it, or None where it goes on. best: the most probable tokens by the same
    distribution and their log-probabilities, as many as were asked for.
    """

    token: int
    log_probability: float
    ending: Ending | None
    best: Best = ()


@dataclass(eq=False)
class ChosenText:
    """A text to which one token is added at a time.

    prompt: what stands before the first new token, as constraints see it. limit: tokens at most. stream: what its
    randomness comes from (`randomness.stream`). stopped: told each token but an end token; says whether the text ends
    with it. tokens: those that were chosen, end tokens included. last: the newest.
    """

    search: Choosing
    prompt: Sequence[int]
    limit: int
    end_ids: frozenset[int]
    stream: int = 0
    stopped: Callable[[int], bool] | None = None
    tokens: list[int] = field(default_factory=lambda: list[int]())
    last: Chosen | None = None
    done: bool = False
    error: SublayerError | None = None
    origins: None = None

    def __post_init__(self) -> None:
        self.feed = [self.prompt[-1]]

    def append(self, token: int, log_probability: float, best: Best) -> None:
        self.tokens.append(token)
        self.feed = [token]
        ending: Ending | None = "length" if len(self.tokens) >= self.limit else None
        if token in self.end_ids:
            ending = "end"
        elif self.stopped is not None and self.stopped(token):
            ending = "stop"
        self.last = Chosen(token, log_probability, ending, best)
        self.done = ending is not None

    def fail(self, error: SublayerError) -> None:
        self.error, self.done, self.last = error, True, None


class Choice(Protocol):
    """How tokens are chosen: logits [R, V] and the texts that they are of -> tokens [R]."""

    def __call__(self, logits: Tensor, texts: Sequence[ChosenText]) -> Tensor: ...


def most_probable(logits: Tensor, texts: Sequence[ChosenText]) -> Tensor:
    """Greedy choice."""
    return top(logits, 1)[1].squeeze(1)


@dataclass(frozen=True)
class Choosing:
    """The search that chooses one token at a time.

    scored: give log-probabilities. best: how many of the most probable tokens to tell at each step.
    """

    choose: Choice
    constraints: tuple[Constraint, ...] = ()
    scored: bool = True
    best: int = 0

    rows = 1

    @property
    def ranks(self) -> int | None:
        return max(1, self.best) if self.choose is most_probable and not self.constraints else None

    def advance(self, offer: Offer, texts: Sequence[ChosenText]) -> None:
        if offer.ranked is not None:
            gains, tokens = offer.ranked
            self._take(texts, tokens[:, 0], cast("list[float]", gains[:, 0].tolist()), offer.ranked)
            return
        assert offer.logits is not None
        logits = offer.logits
        if not all(text.tokens for text in texts):
            for text, finite in zip(texts, is_finite(logits), strict=True):
                if not finite and not text.done:
                    text.fail(NotFinite(0))
        offered = logits
        if self.constraints:
            rows = [[*text.prompt, *text.tokens] for text in texts]
            history = TokenHistory(rows, [len(text.tokens) for text in texts], logits.device)
            offered = constrain(logits, self.constraints, history)
        chosen = self.choose(offered, texts)
        if self.constraints:
            for text, score in zip(texts, _gathered(offered, chosen), strict=True):
                if not score > NEVER and not text.done:
                    text.fail(nothing_left())
        known = logits.log_softmax(dim=-1) if self.scored or self.best else None
        ranked = None if known is None or not self.best else top(known, min(self.best, known.shape[-1]))
        self._take(texts, chosen, [0.0] * len(texts) if known is None else _gathered(known, chosen), ranked)

    def _take(
        self, texts: Sequence[ChosenText], chosen: Tensor, gains: list[float], ranked: tuple[Tensor, Tensor] | None
    ) -> None:
        best: list[Best] = [()] * len(texts) if ranked is None else best_of(ranked, self.best)
        for text, token, gain, others in zip(texts, cast("list[int]", chosen.tolist()), gains, best, strict=True):
            if text.done:
                continue
            if any_nan([gain]):
                text.fail(NotFinite(len(text.tokens)))
            else:
                text.append(token, gain, others)


@dataclass(frozen=True)
class Step:
    """One new token of each row that was running, in lists of equal length.

    rows: which; row b * samples + s is sample s of sentence b. tokens, log_probabilities, endings: as `Chosen`.
    """

    rows: list[int]
    tokens: list[int]
    log_probabilities: list[float]
    endings: list[Ending | None]


def decode(
    model: DecoderBackend[S],
    source: Tensor,
    source_lengths: Tensor | None,
    request: DecodeRequest,
    choose: Choice,
    *,
    samples: int = 1,
    streams: Sequence[int] = (),
    constraints: Sequence[Constraint] = (),
    scored: bool = True,
    stopped: Callable[[int, int], bool] | None = None,
    context: int | None = None,
) -> Iterator[Step]:
    """Decode until every row has ended, a step at a time. Sentences whose rows have all ended leave the batch.

    Shape: source [B, S] int64, source_lengths [B].

    Args:
        samples: rows a sentence. streams: for each row what its randomness comes from, where any is needed.
            scored: give log-probabilities. stopped: told each row's new token unless it is an
            end token; says whether the row ends with it. context: tokens that the model reads at once; texts that
            grow longer go on from their end (`window_start`), and must begin with prompts of one length. Left out:
            all of each text fits.

    Raises:
        InputError: the constraints leave a row no token, or the logits are not finite.
    """
    device, longest = source.device, max(request.steps)
    search = Choosing(choose, tuple(constraints), scored)
    texts = [
        ChosenText(
            search,
            prompt,
            limit,
            request.end_ids,
            streams[row] if streams else 0,
            None if stopped is None else partial(stopped, row),
        )
        for row, (prompt, limit) in enumerate(
            (prompt, limit)
            for prompt, limit in zip(request.prompts, request.steps, strict=True)
            for _ in range(samples)
        )
    ]
    batch = Batch(model, device, width=samples)
    batch.join(model.start(source, source_lengths, num_beams=samples, capacity=longest), texts)
    begun = 0  # where in the texts the state begins
    for number in count():
        running = [row for row, text in enumerate(texts) if not text.done]
        start = 0 if context is None else window_start(len(texts[running[0]].prompt) + number, context)
        if start > begun:
            # What was one prompt's samples are texts of their own by now.
            several = [texts[row] for row in running]
            again = [[*text.prompt, *text.tokens][start:-1] for text in several]
            state = model.start(torch.tensor(again, dtype=torch.int64, device=device), capacity=longest - number)
            batch, begun = Batch(model, device), start
            batch.join(state, several)
        batch.step()
        for row in running:
            if isinstance(error := texts[row].error, NotFinite):
                refuse(model, source, source_lengths, request, error.step)
            if error is not None:
                raise error
        made = [chosen for row in running if (chosen := texts[row].last) is not None]
        yield Step(
            running,
            [chosen.token for chosen in made],
            [chosen.log_probability for chosen in made],
            [chosen.ending for chosen in made],
        )
        batch.drop()
        if not batch.texts:
            return


def best_of(ranked: tuple[Tensor, Tensor], count: int) -> list[Best]:
    """The `count` most probable tokens of each row. ranked: log-probabilities, largest first, and tokens, [R, n]."""
    gains = cast("list[list[float]]", ranked[0][:, :count].tolist())
    tokens = cast("list[list[int]]", ranked[1][:, :count].tolist())
    return [tuple(zip(*row, strict=True)) for row in zip(tokens, gains, strict=True)]


def _gathered(scores: Tensor, tokens: Tensor) -> list[float]:
    return cast("list[float]", scores.gather(1, tokens.unsqueeze(1)).squeeze(1).tolist())
