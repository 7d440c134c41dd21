"""Speculative decoding: cheap guesses at the next tokens, all of them checked by the model in one step.

A guess x is kept with probability min(1, p(x) / q(x)), where p is the distribution that the model samples from and q
the one that the guess was drawn from; the first that is not kept is replaced by a draw from max(0, p - q), normalized,
and the guesses after it are dropped. If all are kept, one more token comes from p. What comes out is distributed as
plain sampling's (Leviathan et al. 2023, https://arxiv.org/abs/2211.17192, algorithm 1 and appendix A.1; Chen et al.
2023, https://arxiv.org/abs/2302.01318). In greedy search a guess is kept where it is the most probable token: the
text is greedy search's own.

Guesses come from a `Drafter`: a smaller model (`DraftModel`), or the text itself (`PromptLookup`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional

from sublayer import config
from sublayer.generation.constraints import NEVER, Constraint, TokenHistory, constrain
from sublayer.generation.loop import Chosen, Ending, Step
from sublayer.generation.randomness import Uniforms
from sublayer.generation.request import DecodeRequest, nothing_left
from sublayer.generation.sampling import sample
from sublayer.models.backend import DecoderBackend, S


@dataclass(frozen=True)
class Guess:
    """What a drafter thinks comes next.

    tokens: n of them. logits: of the distributions that they were drawn from, [n, V]; None where each was certain.
    """

    tokens: list[int]
    logits: Tensor | None = None


class Drafter(Protocol):
    """Whoever guesses. history: the prompt (or the start marker) and all tokens since; count: guesses at most."""

    def guess(self, history: Sequence[int], count: int) -> Guess: ...


@dataclass(frozen=True)
class PromptLookup:
    """What followed the last time that the text's last tokens came, in the prompt or since.

    The longest match counts, and of several the latest (Saxena 2023, "Prompt lookup decoding").

    longest: tokens to match at most.
    """

    longest: int = 3

    def guess(self, history: Sequence[int], count: int) -> Guess:
        best, begin = 0, len(history)
        for place in range(len(history) - 2, -1, -1):
            size = 0
            while size < self.longest and size <= place and history[place - size] == history[-1 - size]:
                size += 1
            if size > best:
                best, begin = size, place + 1
            if best == self.longest:
                break
        return Guess(list(history[begin : begin + count]))


class DraftModel(Generic[S]):
    """Another model with the same vocabulary. It keeps its own state, and goes back where its guesses were refused."""

    def __init__(
        self,
        model: DecoderBackend[S],
        source: Tensor,
        request: DecodeRequest,
        *,
        sampling: config.Sampling | None = None,
        uniforms: Uniforms | None = None,
    ) -> None:
        """
        Args:
            source: as the model's own `start` takes it, [1, S]. sampling: how it draws; None is greedy.
            uniforms: what it draws with; not those of the model that checks.
        """
        self._model = model
        self._sampling = sampling
        self._uniforms = uniforms
        self._state = model.start(source, None, num_beams=1, capacity=request.steps[0])
        self._base = self._state.length
        self._before = len(request.prompts[0]) - 1
        self._fed: list[int] = []
        self._device = source.device

    def guess(self, history: Sequence[int], count: int) -> Guess:
        wanted = list(history[self._before :])
        # The last token is fed in any case: its logits are what the first guess is made of.
        agreed = _agreement(self._fed, wanted[:-1])
        self._state.truncate(self._base + agreed)
        self._fed = self._fed[:agreed]
        feed, tokens, logits = wanted[agreed:], list[int](), list[Tensor]()
        while len(tokens) < count:
            last = self._model.step(torch.tensor([feed], device=self._device), self._state)[:, -1].float()
            self._fed += feed
            last = last if self._sampling is None else self._sampling.process_logits(last)
            tokens.append(_choice(last, self._sampling, self._uniforms))
            logits.append(last)
            feed = tokens[-1:]
        return Guess(tokens, None if self._sampling is None or not logits else torch.cat(logits))


def speculate(
    model: DecoderBackend[S],
    source: Tensor,
    request: DecodeRequest,
    drafter: Drafter,
    *,
    guesses: int = 4,
    sampling: config.Sampling | None = None,
    uniforms: Uniforms | None = None,
    constraints: Sequence[Constraint] = (),
    scored: bool = True,
    stopped: Callable[[int, int], bool] | None = None,
) -> Iterator[Step]:
    """Decode one text, as `loop.decode` does, with fewer steps of the model: one for every run of guesses.

    Greedy search gives the very tokens that it gives without, but for what the rounding of another order of additions
    can do where two tokens are equally probable.

    Shape: source [1, S] int64.

    Args:
        guesses: tokens to guess at most before each check. sampling: what is drawn from; None is greedy search.
        uniforms: what to draw with; needed where `sampling` is given. constraints, scored, stopped: as in `decode`.

    Raises:
        InputError: the constraints leave no token.
    """
    device, limit = source.device, request.steps[0]
    state = model.start(source, None, num_beams=1, capacity=limit)
    text = list(request.prompts[0])
    begun = len(text)
    while True:
        # One token comes from the check itself, so no more is ever fed than plain decoding would.
        room = limit - (len(text) - begun)
        guess = drafter.guess(text, min(guesses, room - 1))
        fed = state.length
        logits = model.step(torch.tensor([[text[-1], *guess.tokens]], device=device), state)[0].float()
        offered = _constrained(logits, constraints, text, begun, guess.tokens) if constraints else logits
        if sampling is not None:
            offered = sampling.process_logits(offered)
        kept, last = _checked(offered, guess, sampling, uniforms)
        state.truncate(fed + 1 + kept)
        tokens = [*guess.tokens[:kept], last]
        possible = [score > NEVER for score in _gathered(offered, tokens)]
        gains = _gathered(logits.log_softmax(dim=-1), tokens) if scored else [0.0] * len(tokens)
        for token, gain, allowed in zip(tokens, gains, possible, strict=True):
            if not allowed:
                raise nothing_left()
            text.append(token)
            ending: Ending | None = None
            if token in request.end_ids:
                ending = "end"
            elif stopped is not None and stopped(0, token):
                ending = "stop"
            elif len(text) - begun >= limit:
                ending = "length"
            yield {0: Chosen(token, gain, ending)}
            if ending is not None:
                return


def _checked(
    offered: Tensor, guess: Guess, sampling: config.Sampling | None, uniforms: Uniforms | None
) -> tuple[int, int]:
    """How many guesses are kept, and the token after them. offered: [n + 1, V], logits before each guess and after."""
    if sampling is None:
        best = cast("list[int]", offered.argmax(dim=-1).tolist())
        kept = _agreement(guess.tokens, best)
        return kept, best[kept]
    assert uniforms is not None, "sampling needs random numbers"
    if not guess.tokens:
        return 0, _choice(offered, sampling, uniforms)
    model = offered.softmax(dim=-1)
    if guess.logits is None:
        draft = functional.one_hot(torch.tensor(guess.tokens, device=model.device), model.shape[1]).to(model.dtype)
    else:
        draft = guess.logits.softmax(dim=-1)
    chances = zip(_gathered(model, guess.tokens), _gathered(draft, guess.tokens), strict=True)
    for place, (p, q) in enumerate(chances):
        if not uniforms.next() * q < p:
            left = (model[place] - draft[place]).clamp(min=0.0)
            # p = q leaves nothing, and refuses nothing but by rounding.
            left = left if left.any() else model[place]
            return place, int(sample(left.log().unsqueeze(0), [uniforms.next()]))
    return len(guess.tokens), _choice(offered[-1:], sampling, uniforms)


def _choice(logits: Tensor, sampling: config.Sampling | None, uniforms: Uniforms | None) -> int:
    """A token of [1, V], drawn or the best."""
    if sampling is None:
        return int(logits.argmax(dim=-1))
    assert uniforms is not None, "sampling needs random numbers"
    return int(sample(logits, [uniforms.next()]))


def _constrained(
    logits: Tensor, constraints: Sequence[Constraint], text: Sequence[int], begun: int, guessed: Sequence[int]
) -> Tensor:
    """Each row constrained by what would have come before it: the text, of which the prompt is `begun` tokens, and the
    guesses up to there."""
    before = [[*text, *guessed[:place]] for place in range(len(logits))]
    history = TokenHistory(before, [len(row) - begun for row in before], logits.device)
    return constrain(logits, constraints, history)


def _gathered(scores: Tensor, tokens: list[int]) -> list[float]:
    index = torch.tensor(tokens, device=scores.device).unsqueeze(1)
    return cast("list[float]", scores[: len(tokens)].gather(1, index).squeeze(1).tolist())


def _agreement(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
