"""Sampling: its settings, and what each of them does to the logits, beside each other.

A filter is a field of `Sampling`, a function of logits, and a line of `process_logits`; the options of the command line
and what is read and written of other libraries' settings follow from the field. Definitions and order are those of
`transformers`, and so are the names. Only methods of the tensors are used, so that no torch is imported here.

Shapes: R rows, V vocabulary.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from sublayer.config.part import Factor, Part, Size

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Sampling"]

NEVER = float("-inf")


class Sampling(Part):
    """Draw each token from the model's distribution, after these filters, in the order of the fields.

    temperature: sampling temperature; the logits are divided by it.
    top_k: sample from the k most probable tokens only, and those that tie with the last of them.
    top_p: nucleus sampling: sample from the smallest set of tokens with total probability at least p (Holtzman et al.
    2020).
    min_p: drop tokens less than p times as probable as the most probable one (Nguyen et al. 2024).
    typical_p: locally typical sampling: sample from the smallest set of tokens with total probability at least p, those
    first whose information is nearest to the entropy (Meister et al. 2022).
    """

    type: Literal["sampling"] = "sampling"
    temperature: Factor = 1.0
    top_k: Size | None = None
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    min_p: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    typical_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0

    def process_logits(self, logits: Tensor) -> Tensor:
        """Apply all filters; dropped tokens become `NEVER`. Shape: [R, V] -> [R, V]."""
        if self.temperature != 1.0:
            logits = logits / self.temperature
        if self.top_k is not None:
            logits = top_k(logits, self.top_k)
        if self.top_p < 1.0:
            logits = top_p(logits, self.top_p)
        if self.min_p > 0.0:
            logits = min_p(logits, self.min_p)
        if self.typical_p < 1.0:
            logits = typical_p(logits, self.typical_p)
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
    return logits.new_full(logits.shape, NEVER).scatter_(1, order, values.masked_fill(cut, NEVER))


def min_p(logits: Tensor, p: float) -> Tensor:
    """Keep the tokens at least p times as probable as the most probable (Nguyen et al. 2024, "Turning up the heat:
    min-p sampling for creative and coherent LLM outputs", https://arxiv.org/abs/2407.01082)."""
    return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) + math.log(p), NEVER)


def typical_p(logits: Tensor, p: float) -> Tensor:
    """The fewest tokens that together have probability p or more, those first whose information -log p(token) is
    nearest to the entropy of the distribution, and those that are as near as the last of them (section 4 of Meister et
    al. 2022, "Locally typical sampling", https://arxiv.org/abs/2202.00666)."""
    known = logits.log_softmax(dim=-1)
    probability = known.exp()
    # 0 log 0 is 0: what is ruled out already tells nothing.
    entropy = -(probability * known.masked_fill(probability == 0.0, 0.0)).sum(dim=-1, keepdim=True)
    distance = (-known - entropy).abs()
    nearest, order = distance.sort(dim=-1)
    reached = probability.gather(-1, order).cumsum(dim=-1)
    last = (reached < p).sum(dim=-1, keepdim=True).clamp_(max=logits.shape[-1] - 1)
    return logits.masked_fill(distance > nearest.gather(-1, last), NEVER)
