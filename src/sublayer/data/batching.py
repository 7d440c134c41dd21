"""Which rows make a batch: a plan for a whole epoch, as a pure function of seed and epoch.

Batches come in few shapes. A library that makes a program for each shape of a product that it meets (oneDNN in
bfloat16: 2 to 60 ms, where the product takes 0.1 to 5; torch.compile: seconds) would else make programs for a whole
training, and keep a megabyte of each. So rows are sorted by lengths rounded up, and a batch has a round number of rows.
Of the 880 batches of the demo's epoch 178 had shapes of their own; now 81 have, and 25 of these cover nine in ten.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sublayer.config import Batching
from sublayer.errors import DataError

Rows = NDArray[np.int64]

ROUND_LENGTH = 2
"""Lengths that are alike once rounded up to a multiple stand together."""
DIGITS = 4
"""The number of rows of a batch has so many significant binary digits at most: 15, 16, 18, …, 30, 32, 36, …"""


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
    """An order by target length, and within it by source length, up and down in turn, both rounded up.

    Turning round at each new target length keeps neighbours alike where a batch spans two of them. The sort is
    stable, so equals stay in the (random) order they came in.
    """
    source, target = (-(-lengths // ROUND_LENGTH) for lengths in (source_lengths, target_lengths))
    turned = np.where(target % 2 == 0, source, -source)
    return np.lexsort((turned, target)).astype(np.int64)


def _round(rows: int) -> int:
    """`rows` rounded down to a number of few binary digits."""
    shift = max(rows.bit_length() - DIGITS, 0)
    return rows >> shift << shift


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
    first = rows = longest_source = longest_target = 0
    # Plain integers: element by element, numpy's are many times slower.
    sources, targets = source_lengths[order].tolist(), target_lengths[order].tolist()
    place = 0
    while place < len(sources):
        source, target = max(longest_source, sources[place]), max(longest_target, targets[place])
        if (rows + 1) * (source + target) > tokens:
            # What is over a round number of rows begins the next batch.
            first += _round(rows)
            starts.append(first)
            place, rows, longest_source, longest_target = first, 0, 0, 0
            continue
        rows, longest_source, longest_target = rows + 1, source, target
        place += 1
    whole = order.astype(np.int64)
    return [run for run in np.split(whole, starts) if len(run)]
