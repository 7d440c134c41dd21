"""The steps of a decoder backend, with torch: lists to tensors, and the numbers back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sublayer.generation.batch import Ranked, Steps
from sublayer.models.backend import DecoderBackend, Ranks, S
from sublayer.models.batching import padded


class ModelSteps(Steps[S]):
    """See `Steps`. device: where the backend's tensors are."""

    def __init__(self, model: DecoderBackend[S], device: torch.device) -> None:
        self.model, self.device = model, device
        # Asked once: to look a protocol up takes as long as a small part of a step.
        self._ranking = model if isinstance(model, Ranks) else None

    def start(self, sources: Sequence[Sequence[int]], *, num_beams: int, capacity: int) -> S:
        """See `Steps`."""
        return self.model.start(*self.padded(sources), num_beams=num_beams, capacity=capacity)

    def padded(self, sources: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor | None]:
        """Sources as a backend takes them."""
        # What pads is masked: any token does, and not every tokenizer has one for it.
        return padded(sources, 0, self.device)

    def rank(self, tokens: list[int], state: S, count: int) -> Ranked | None:
        """See `Steps`."""
        if self._ranking is None:
            return None
        best = self._ranking.best(self._tensor(tokens).unsqueeze(1), state, count)
        return None if best is None else Ranked(*(part.numpy(force=True) for part in best))

    def logits(self, tokens: list[int], state: S) -> Tensor:
        """See `Steps`."""
        return self.model.step(self._tensor(tokens).unsqueeze(1), state)[:, -1].float()

    def reorder(self, state: S, rows: list[int]) -> None:
        """See `Steps`."""
        state.reorder(self._tensor(rows))

    def keep(self, state: S, sentences: list[int]) -> None:
        """See `Steps`."""
        state.keep(self._tensor(sentences))

    def replace(self, state: S, sentences: list[int], other: S) -> None:
        """See `Steps`."""
        state.replace(self._tensor(sentences), other)

    def join(self, state: S, other: S) -> None:
        """See `Steps`."""
        state.join(other)

    def _tensor(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, device=self.device)
