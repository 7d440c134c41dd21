"""Greedy search and sampling: at every step one token is chosen for each text.

`decode` is a generator that yields the tokens of every step, so that a text can be streamed. The loop itself, which
feeds tokens and drops what is finished, is that of all searches (`batch.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, cast

from sublayer.errors import SublayerError
from sublayer.generation.batch import Batch, Offer, Steps, Text
from sublayer.generation.finite import NotFinite, any_nan, is_finite
from sublayer.generation.request import DecodeRequest, nothing_left
from sublayer.generation.window import window_start

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from sublayer.generation.constraints import Constraint

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
class ChosenText(Text):
    """A text to which one token is added at a time.

    stream: what its randomness comes from (`randomness.stream`). stopped: told each token but an end token; says
    whether the text ends with it. tokens: those that were chosen, end tokens included. last: the newest.
    """

    search: Choosing
    end_ids: frozenset[int]
    stream: int = 0
    stopped: Callable[[int], bool] | None = None
    tokens: list[int] = field(default_factory=lambda: list[int]())
    last: Chosen | None = None

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
        super().fail(error)
        self.last = None


class Choice(Protocol):
    """How tokens are chosen: logits [R, V] and the texts that they are of -> tokens [R]."""

    def __call__(self, logits: Tensor, texts: Sequence[ChosenText]) -> Tensor: ...


def most_probable(logits: Tensor, texts: Sequence[ChosenText]) -> Tensor:
    """Greedy choice."""
    from sublayer.generation.top import top

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
            logs, tokens = offer.ranked
            best = best_of(logs, tokens, self.best) if self.best else None
            self._take(texts, tokens[:, 0].tolist(), logs[:, 0].tolist(), best)
            return
        assert offer.logits is not None
        self._choose(offer.logits, texts)

    def _choose(self, logits: Tensor, texts: Sequence[ChosenText]) -> None:
        from sublayer.generation.constraints import NEVER, TokenHistory, constrain
        from sublayer.generation.top import top

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
        gains = [0.0] * len(texts) if known is None else _gathered(known, chosen)
        best = None
        if known is not None and self.best:
            best = best_of(*top(known, min(self.best, known.shape[-1])), self.best)
        self._take(texts, cast("list[int]", chosen.tolist()), gains, best)

    def _take(
        self, texts: Sequence[ChosenText], chosen: list[int], gains: list[float], best: list[Best] | None
    ) -> None:
        others = [()] * len(texts) if best is None else best
        for text, token, gain, found in zip(texts, chosen, gains, others, strict=True):
            if text.done:
                continue
            if any_nan([gain]):
                text.fail(NotFinite(len(text.tokens)))
            else:
                text.append(token, gain, found)


Step: TypeAlias = dict[int, Chosen]
"""The new token of each row that was running; row b * samples + s is sample s of sentence b."""


def decode(
    steps: Steps[Any],
    state: Any,
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

    Args:
        state: what `steps.start` made of the sources. samples: rows a sentence, in the state as well. streams: for each
            row what its randomness comes from, where any is needed. scored: give log-probabilities. stopped: told each
            row's new token unless it is an end token; says whether the row ends with it. context: tokens that the model
            reads at once; texts that grow longer go on from their end (`window_start`), and must begin with prompts of
            one length. Left out: all of each text fits.

    Raises:
        NotFinite: the model's numbers are not finite. InputError: the constraints leave a row no token.
    """
    longest = max(request.steps)
    texts = texts_of(request, Choosing(choose, tuple(constraints), scored), samples, streams, stopped)
    batch = Batch(steps, width=samples)
    batch.join(state, texts)
    begun = 0  # where in the texts the state begins
    for number in count():
        running = [text for text in texts if not text.done]
        start = 0 if context is None else window_start(len(running[0].prompt) + number, context)
        if start > begun:
            # What was one prompt's samples are texts of their own by now.
            again = [[*text.prompt, *text.tokens][start:-1] for text in running]
            batch, begun = Batch(steps), start
            batch.join(steps.start(again, num_beams=1, capacity=longest - number), running)
        yield one_step(batch, texts)
        batch.drop()
        if not batch.texts:
            return


def texts_of(
    request: DecodeRequest,
    search: Choosing,
    samples: int = 1,
    streams: Sequence[int] = (),
    stopped: Callable[[int, int], bool] | None = None,
) -> list[ChosenText]:
    """The texts of a request, not begun; arguments as of `decode`."""
    every = [each for each in zip(request.prompts, request.steps, strict=True) for _ in range(samples)]
    return [
        ChosenText(
            search,
            prompt,
            limit,
            request.end_ids,
            streams[row] if streams else 0,
            None if stopped is None else partial(stopped, row),
        )
        for row, (prompt, limit) in enumerate(every)
    ]


def one_step(batch: Batch[Any], texts: Sequence[ChosenText]) -> Step:
    """Let a batch take a step, and return what it added to `texts`, of which those that are not done run in it.

    Raises:
        NotFinite: the model's numbers are not finite. InputError: the constraints leave a text no token.
    """
    running = [row for row, text in enumerate(texts) if not text.done]
    batch.step()
    for row in running:
        if (error := texts[row].error) is not None:
            raise error
    return {row: chosen for row in running if (chosen := texts[row].last) is not None}


def best_of(logs: Tensor | NDArray[np.float32], tokens: Tensor | NDArray[np.int64], count: int) -> list[Best]:
    """The `count` most probable tokens of each row. Shape: [R, n], most probable first."""
    gains = cast("list[list[float]]", logs[:, :count].tolist())
    places = cast("list[list[int]]", tokens[:, :count].tolist())
    return [tuple(zip(*row, strict=True)) for row in zip(places, gains, strict=True)]


def _gathered(scores: Tensor, tokens: Tensor) -> list[float]:
    return cast("list[float]", scores.gather(1, tokens.unsqueeze(1)).squeeze(1).tolist())
