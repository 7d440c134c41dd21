"""Which rows make a batch: a plan for a whole epoch, as a pure function of seed and epoch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sublayer.config import Batching
from sublayer.errors import DataError

Rows = NDArray[np.int64]


def plan(
    source_lengths: NDArray[np.integer],
    target_lengths: NDArray[np.integer],
    batching: Batching,
    seed: int,
    epoch: int,
) -> list[Rows]:
    """The rows of each batch of an epoch, in the order in which they are trained on. Every row occurs once.

    With buckets, rows of like length stand together, chosen at random among their likes, and the batches are then
    shuffled; without, rows come in random order. Either way rows * (longest source + longest target) stays
    within `batching.tokens`. A pure function of its arguments.

    Args:
        source_lengths, target_lengths: integers [N], in tokens, end marker included; the target's are 0 where a row is
            one text.
        batching: budget and whether to bucket.
        seed, epoch: together the seed of the random choices; not negative.

    Returns:
        int64 arrays of row numbers.

    Raises:
        DataError: a single row is over the budget; the row is named.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(source_lengths))
    if batching.buckets:
        order = order[_by_length(source_lengths[order], target_lengths[order])]
    batches = cut(order, source_lengths, target_lengths, batching.tokens)
    if batching.buckets:
        return [batches[place] for place in random.permutation(len(batches)).tolist()]
    return batches


def in_order(
    source_lengths: NDArray[np.integer], target_lengths: NDArray[np.integer], batching: Batching
) -> list[Rows]:
    """A plan without chance, for evaluation: shortest first with buckets, else in the order of the rows."""
    order = np.arange(len(source_lengths))
    if batching.buckets:
        order = _by_length(source_lengths, target_lengths)
    return cut(order, source_lengths, target_lengths, batching.tokens)


def padding_waste(
    batches: list[Rows], source_lengths: NDArray[np.integer], target_lengths: NDArray[np.integer]
) -> float:
    """The part of all positions, of both sides, that is padding: 0 is none."""
    padded = sum(len(rows) * int(source_lengths[rows].max() + target_lengths[rows].max()) for rows in batches)
    real = sum(int(source_lengths[rows].sum() + target_lengths[rows].sum()) for rows in batches)
    return 1.0 - real / padded if padded else 0.0


def _by_length(source_lengths: NDArray[np.integer], target_lengths: NDArray[np.integer]) -> Rows:
    """An order by target length, and within it by source length, up and down in turn.

    Turning round at each new target length keeps neighbours alike where a batch spans two of them. The sort is
    stable, so equals stay in the (random) order they came in.
    """
    turned = np.where(target_lengths % 2 == 0, source_lengths, -source_lengths)
    return np.lexsort((turned, target_lengths)).astype(np.int64)


def cut(
    order: NDArray[np.integer], source_lengths: NDArray[np.integer], target_lengths: NDArray[np.integer], tokens: int
) -> list[Rows]:
    """`order` cut into runs, each as long as the budget of `tokens` allows.

    Raises:
        DataError: a single row is over the budget; the row is named.
    """
    alone = source_lengths + target_lengths
    if len(alone) and int(alone.max()) > tokens:
        row = int(alone.argmax())
        source, target = int(source_lengths[row]), int(target_lengths[row])
        said = f"{source} source and {target} target tokens" if target else f"{source} tokens"
        raise DataError(
            f"row {row} has {said}, more than training.batches.tokens = {tokens}",
            "Raise training.batches.tokens or lower data.max_length.",
        )
    starts: list[int] = []
    rows = longest_source = longest_target = 0
    # Plain integers: element by element, numpy's are many times slower.
    lengths = zip(source_lengths[order].tolist(), target_lengths[order].tolist(), strict=True)
    for place, (source, target) in enumerate(lengths):
        rows += 1
        longest_source = max(longest_source, source)
        longest_target = max(longest_target, target)
        if rows * (longest_source + longest_target) > tokens:
            starts.append(place)
            rows, longest_source, longest_target = 1, source, target
    whole = order.astype(np.int64)
    return [run for run in np.split(whole, starts) if len(run)]
