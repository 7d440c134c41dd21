"""Sampling: draw each token from the model's distribution, after temperature, top-k, top-p and min-p.

These are functions of the logits, defined and ordered as in `transformers`. One uniform number then picks a token by
the inverse of the cumulative distribution. The number depends on (seed, row, step) only (`randomness`), so that a text
does not depend on the rest of its batch.

Shapes: R rows, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from sublayer import config
from sublayer.generation.randomness import uniform

NEVER = float("-inf")
BLOCK = 256


def warped(logits: Tensor, c: config.Sampling) -> Tensor:
    """Apply temperature, top-k, top-p and min-p; dropped tokens become `NEVER`. Shape: [R, V] -> [R, V]."""
    if c.temperature != 1.0:
        logits = logits / c.temperature
    if c.top_k is not None:
        logits = top_k(logits, c.top_k)
    if c.top_p < 1.0:
        logits = top_p(logits, c.top_p)
    if c.min_p > 0.0:
        logits = min_p(logits, c.min_p)
    return logits


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k most probable tokens of each row, and those that tie with the last of them."""
    least = logits.topk(min(k, logits.shape[-1]), dim=-1).values[:, -1:]
    return logits.masked_fill(logits < least, NEVER)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the smallest set of tokens with total probability p or more (section 3.1 of Holtzman et al. 2020, "The
    curious case of neural text degeneration", https://arxiv.org/abs/1904.09751)."""
    vocabulary = logits.shape[-1]
    total = logits.logsumexp(dim=-1, keepdim=True)
    # Few tokens hold the mass as a rule, and finding them is several times quicker than sorting all.
    size = min(128, vocabulary)
    while True:
        values, order = logits.topk(size, dim=-1)
        probability = (values - total).exp()
        reached = probability.cumsum(dim=-1)
        if size == vocabulary or bool((reached[:, -1] >= p).all()):
            break
        size = min(8 * size, vocabulary)
    cut = reached - probability >= p
    cut[:, 0] = False
    return torch.full_like(logits, NEVER).scatter_(1, order, values.masked_fill(cut, NEVER))


def min_p(logits: Tensor, p: float) -> Tensor:
    """Keep the tokens at least p times as probable as the most probable (Nguyen et al. 2024, "Turning up the heat:
    min-p sampling for creative and coherent LLM outputs", https://arxiv.org/abs/2407.01082)."""
    return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) + math.log(p), NEVER)


def drawn(logits: Tensor, uniforms: Sequence[float]) -> Tensor:
    """Return for each row the token at which the cumulative distribution passes its uniform number.

    A row that is `NEVER` everywhere returns an arbitrary token; the caller checks the score of the chosen token.

    Shape: logits [R, V], one number in [0, 1) a row -> [R] int64.
    """
    if logits.device.type == "mps":  # has no float64, in which a number below 1 stays below the sum
        return drawn(logits.cpu(), uniforms).to(logits.device)
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


class Sampler:
    """Chooses tokens by sampling.

    Args:
        streams: for each row of the search, what its randomness comes from (`randomness.stream`).
    """

    def __init__(self, c: config.Sampling, streams: Sequence[int]) -> None:
        self.config = c
        self.streams = streams

    def __call__(self, logits: Tensor, rows: Sequence[int], step: int) -> Tensor:
        """Shape: logits [R, V] of these rows -> [R] int64."""
        return drawn(warped(logits, self.config), [uniform(self.streams[row], step) for row in rows])
