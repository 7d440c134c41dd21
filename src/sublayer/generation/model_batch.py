"""A batch that a decoder backend steps, with torch: tokens to tensors, constraints on scores, and the numbers back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NoReturn, cast

import torch
from torch import Tensor

from sublayer.generation.batch import Chosen, Ranked
from sublayer.generation.constraints import NEVER, Constraint, TokenHistory, constrain
from sublayer.generation.finite import is_finite, refuse
from sublayer.generation.loop import Choice, most_probable
from sublayer.generation.request import DecodeRequest
from sublayer.generation.top import top
from sublayer.models.backend import DecoderBackend, S, ranked


class ModelBatch(Generic[S]):
    """The sentences of a request, begun: see `Batch`.

    Shape: source [B, S] int64, source_lengths [B].

    Args:
        scored: whether log-probabilities are wanted of what is chosen.
    """

    def __init__(
        self,
        model: DecoderBackend[S],
        source: Tensor,
        source_lengths: Tensor | None,
        request: DecodeRequest,
        *,
        num_beams: int,
        constraints: Sequence[Constraint] = (),
        choice: Choice = most_probable,
        scored: bool = True,
    ) -> None:
        self._model, self._request, self._source = model, request, (source, source_lengths)
        self._num_beams, self._constraints, self._choice, self._scored = num_beams, constraints, choice, scored
        self._device, longest = source.device, max(request.steps)
        self._state = model.start(source, source_lengths, num_beams=num_beams, capacity=longest)
        self._history, self._begun = None, False
        if constraints:
            prompts = [one for one in request.prompts for _ in range(num_beams)]
            self._history = TokenHistory(prompts, longest, self._device)

    def rank(self, tokens: Sequence[int], count: int) -> Ranked:
        """See `Batch`."""
        feed = self._fed(tokens)
        best = None if self._constraints else ranked(self._model, feed, self._state, count)
        if best is not None:
            gained, candidates = (each.numpy(force=True) for each in best)
            return Ranked(gained, gained, candidates)
        logits = self._step(feed)
        count = min(count, logits.shape[-1])
        # On a CPU the log-softmax of everything, a single kernel, is twice as fast as the logsumexp that would do.
        every = logits.log_softmax(dim=-1)
        if not self._constraints:
            _, token = top(logits, count)
            own = every.gather(1, token).numpy(force=True)
            return Ranked(own, own, token.numpy(force=True))
        gained, token = constrain(every, self._constraints, self._history).topk(count, dim=-1)
        own = every.gather(1, token)
        return Ranked(gained.numpy(force=True), own.numpy(force=True), token.numpy(force=True))

    def choose(self, tokens: Sequence[int], rows: Sequence[int], step: int) -> Chosen:
        """See `Batch`."""
        feed = self._fed(tokens)
        if self._choice is most_probable and not self._constraints:
            best = ranked(self._model, feed, self._state, 1)
            if best is not None:
                gained, chosen = (each.flatten() for each in best)
                picked = cast("list[int]", chosen.tolist())
                return Chosen(picked, cast("list[float]", gained.tolist()), [True] * len(picked))
        logits = self._step(feed)
        if step == 0 and not is_finite(logits):
            self.refuse(step)
        offered = constrain(logits, self._constraints, self._history)
        chosen = self._choice(offered, rows, step)
        picked = cast("list[int]", chosen.tolist())
        gained = _gathered(logits.log_softmax(dim=-1), chosen) if self._scored else [0.0] * len(picked)
        allowed = [True] * len(picked)
        if self._constraints:
            allowed = [score > NEVER for score in _gathered(offered, chosen)]
        return Chosen(picked, gained, allowed)

    def reorder(self, rows: Sequence[int]) -> None:
        """See `Batch`."""
        index = torch.tensor(rows, device=self._device)
        self._state.reorder(index)
        if self._history is not None:
            self._history.select(index)

    def keep(self, sentences: Sequence[int]) -> None:
        """See `Batch`."""
        self._state.keep(torch.tensor(sentences, device=self._device))
        if self._history is not None:
            width = self._num_beams
            rows = [sentence * width + each for sentence in sentences for each in range(width)]
            self._history.select(torch.tensor(rows, device=self._device))

    def restart(self, texts: Sequence[Sequence[int]], capacity: int) -> None:
        """See `Batch`."""
        again = torch.tensor(texts, dtype=torch.int64, device=self._device)
        self._state, self._num_beams = self._model.start(again, capacity=capacity), 1

    def refuse(self, step: int) -> NoReturn:
        """See `Batch`."""
        refuse(self._model, *self._source, self._request, step)

    def _fed(self, tokens: Sequence[int]) -> Tensor:
        feed = torch.tensor(tokens, device=self._device)
        if self._history is not None and self._begun:
            self._history.append(feed)
        self._begun = True
        return feed.unsqueeze(1)

    def _step(self, feed: Tensor) -> Tensor:
        return self._model.step(feed, self._state)[:, -1].float()


def _gathered(scores: Tensor, tokens: Tensor) -> list[float]:
    return cast("list[float]", scores.gather(1, tokens.unsqueeze(1)).squeeze(1).tolist())
