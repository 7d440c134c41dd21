"""Sampling: at every step a token drawn from the model's distribution, sharpened and cut.

What sharpens and cuts stands beside its settings (`config/sampling.py`). One uniform number then picks a token by the
inverse of the cumulative distribution; it is a function of (seed, row, step) alone (`randomness`), so that what is
sampled together is what is sampled alone.

Shapes: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sublayer import config
from sublayer.generation.loop import ChosenText
from sublayer.generation.randomness import uniform

BLOCK = 256


def sample(logits: Tensor, uniforms: Sequence[float]) -> Tensor:
    """For each row the token at which the cumulative distribution passes its uniform number.

    A row that is ruled out as a whole gives any token: whoever does that sees it by the score of what was chosen.

    Shape: logits [R, V], one number in [0, 1) a row -> [R] int64.
    """
    if logits.device.type == "mps":  # has no float64, in which a number below 1 stays below the sum
        return sample(logits.cpu(), uniforms).to(logits.device)
    rows, vocabulary = logits.shape
    # First the block, then the token in it: a sum of blocks is some ten times quicker than a cumulative sum of all.
    blocks = functional.pad(logits.softmax(dim=-1), (0, -vocabulary % BLOCK)).view(rows, -1, BLOCK)
    at = torch.tensor(uniforms, dtype=torch.float64, device=logits.device)
    block, within = _passed(blocks.sum(dim=-1, dtype=torch.float64), at)
    token, _ = _passed(blocks[torch.arange(rows, device=logits.device), block].double(), within)
    return (block * BLOCK + token).clamp_(max=vocabulary - 1)


def _passed(weights: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Where the cumulative weights pass `at` times their sum, and how far into that weight: [R, n], [R] -> [R], [R]."""
    cumulative = weights.cumsum(dim=-1)
    target = at.unsqueeze(1) * cumulative[:, -1:]
    # To the right of what equals the target, so never a weight of 0.
    place = torch.searchsorted(cumulative, target, right=True).clamp_(max=weights.shape[1] - 1)
    weight = weights.gather(1, place)
    into = (target - (cumulative.gather(1, place) - weight)) / weight
    return place.squeeze(1), into.clamp(0.0, 1.0 - 2.0**-52).squeeze(1)


@dataclass(frozen=True)
class Sampler:
    """Chooses tokens by sampling, each with the number of its text's own stream."""

    config: config.Sampling

    def __call__(self, logits: Tensor, texts: Sequence[ChosenText]) -> Tensor:
        """Shape: logits [R, V] of these texts -> [R] int64."""
        return sample(self.config.process_logits(logits), [uniform(text.stream, len(text.tokens)) for text in texts])
