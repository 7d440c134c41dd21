"""How much each head matters: what a model loses with the head switched off.

The loss is that of the model's own task on the examples given, in nats a target, and a head's importance is how much
it rises when what the head has found is replaced by zero, at the tap `heads` (Michel et al. 2019, "Are Sixteen Heads
Really Better than One?", https://arxiv.org/abs/1905.10650, section 3.2, with the loss in the place of BLEU). Heads are
switched off one at a time: two that do the same look unimportant both, and a model that was never trained with a head
off may suffer from the mere surprise. A negative number says that the model does better without.

Shapes: L layers, H heads, N examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from sublayer.errors import InputError
from sublayer.inspection.editing import edit, zero_ablate
from sublayer.inspection.examples import Example, losses
from sublayer.inspection.groups import Group, groups
from sublayer.models import Transformer as Model
from sublayer.models.evaluating import evaluating


@dataclass(frozen=True, eq=False)
class Importance:
    """Of all heads of one kind of attention.

    change: of the loss with the head off, nats a target, float64 [L, H]. error: the standard error of each, as far as
    it comes from which examples were drawn; NaN of a single example.
    """

    group: Group
    change: Tensor
    error: Tensor


@dataclass(frozen=True, eq=False)
class Ablation:
    """loss: of the whole model, nats a target. targets: how many there are. importance: of each kind of attention."""

    loss: float
    targets: int
    importance: list[Importance]


def runs(model: Model) -> int:
    """How many times `ablate` reads the examples: once whole, and once without each head."""
    return 1 + sum(len(group.attentions) * group.heads for group in groups(model))


def ablate(
    model: Model,
    examples: Sequence[Example],
    *,
    tokens: int = 1024,
    progress: Callable[[], None] | None = None,
) -> Ablation:
    """The change of loss with each head off.

    Args:
        tokens: budget of a batch. progress: called after each of the `runs(model)`.

    Raises:
        InputError: there is no example, nothing is asked of one, or the model's head gives no probabilities.
    """
    if not examples:
        raise InputError("there is no text to measure a loss on", "Give at least one.")
    counts = torch.tensor([float(example.targets) for example in examples], dtype=torch.float64)

    def read() -> Tensor:
        nats = losses(model, examples, tokens=tokens)
        if progress is not None:
            progress()
        return nats

    with evaluating(model):
        whole = read()
        found: list[Importance] = []
        for group in groups(model):
            changes: list[tuple[float, float]] = []
            for tap, head in product(group.taps("heads"), range(group.heads)):
                with edit(model, tap, zero_ablate(head)):
                    changes.append(_mean(read() - whole, counts))
            # [L, H, 2]
            table = torch.tensor(changes, dtype=torch.float64).view(len(group.attentions), group.heads, 2)
            found.append(Importance(group, table[..., 0], table[..., 1]))
    return Ablation((whole.sum() / counts.sum()).item(), int(counts.sum()), found)


def _mean(nats: Tensor, counts: Tensor) -> tuple[float, float]:
    """Nats a target, and the standard error of this ratio of two sums (Cochran, Sampling Techniques, section 6.3).

    Shape: nats and counts [N].
    """
    total, n = counts.sum().item(), len(nats)
    mean = nats.sum().item() / total
    spread = (nats - mean * counts).square().sum().item()
    return mean, math.sqrt(spread * n / (n - 1)) / total if n > 1 else math.nan
