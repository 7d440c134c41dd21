"""What is hidden from a model that learns from plain text: pure functions of tokens and a random generator.

Shapes: n tokens of a text, int; V tokens in the vocabulary.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sublayer.config import DenoisingTask, MaskedTask, SpanCorruptionTask
from sublayer.data.batch import IGNORE

Tokens = NDArray[np.int64]
Flags = NDArray[np.bool_]


def mask_tokens(
    tokens: Tokens, c: MaskedTask, random: np.random.Generator, *, starts: Flags, mask_id: int, others: Tokens
) -> tuple[Tokens, Tokens]:
    """BERT's masking (Devlin et al. 2019, section 3.1): what the model is given, and what it is to say.

    round(rate * n) tokens, at least one, are targets. Of those a part `c.mask` is given as the mask token, a part
    `c.random` as a token drawn from `others`, and the rest as it is. With whole words, words are taken until there are
    so many tokens, all pieces of each (Cui et al. 2019).

    Args:
        tokens: [n], without markers, 1 or more. starts: [n], whether a word begins there.

    Returns:
        The tokens [n] as they are given, and the targets [n], `IGNORE` where nothing is asked.
    """
    count = max(1, round(c.rate * len(tokens)))
    if c.whole_words:
        word = np.cumsum(starts) - int(starts[0])
        order = random.permutation(int(word[-1]) + 1)
        sizes = np.bincount(word)[order]
        # The words before which fewer than `count` tokens are chosen: enough, and not one more.
        taken = order[np.cumsum(sizes) - sizes < count]
        chosen = np.flatnonzero(np.isin(word, taken))
    else:
        chosen = random.permutation(len(tokens))[:count]
    given, target = tokens.copy(), np.full(len(tokens), IGNORE, dtype=np.int64)
    target[chosen] = tokens[chosen]
    draw = random.random(len(chosen))
    given[chosen[draw < c.mask]] = mask_id
    replaced = chosen[(draw >= c.mask) & (draw < c.mask + c.random)]
    given[replaced] = random.choice(others, size=len(replaced))
    return given, target


def corrupt_spans(
    tokens: Tokens, c: SpanCorruptionTask, random: np.random.Generator, *, sentinels: Tokens
) -> tuple[Tokens, Tokens]:
    """T5's span corruption (Raffel et al. 2020, section 3.1.4): the text with a sentinel for each span, and the spans.

    round(density * n) tokens are left out, in round(that / span) spans. Texts begin with a token that is kept and end
    with one that is left out, as in T5's own code; lengths of spans and of what is between them are drawn uniformly
    among all ways to divide.

    Args:
        tokens: [n], 1 or more. sentinels: their ids, in order.

    Returns:
        `kept kept S0 kept S1` and `S0 out out S1 out`.
    """
    n = len(tokens)
    out, spans = span_counts(n, c)
    if n == out:
        return sentinels[:1], np.concatenate([sentinels[:1], tokens])
    lengths = np.stack([_divided(n - out, spans, random), _divided(out, spans, random)], axis=1).ravel()
    parts = np.split(tokens, np.cumsum(lengths)[:-1])
    given: list[Tokens] = []
    target: list[Tokens] = []
    for number in range(spans):
        sentinel = sentinels[number : number + 1]
        given += [parts[2 * number], sentinel]
        target += [sentinel, parts[2 * number + 1]]
    return np.concatenate(given), np.concatenate(target)


def span_counts(n: int, c: SpanCorruptionTask) -> tuple[int, int]:
    """How many of n tokens span corruption leaves out, and in how many spans."""
    if n == 1:
        return 1, 1
    out = min(max(round(c.density * n), 1), n - 1)
    return out, min(max(round(out / c.span), 1), out, n - out, c.sentinels)


def infill(
    tokens: Tokens, c: DenoisingTask, random: np.random.Generator, *, ends: Flags, mask_id: int
) -> tuple[Tokens, Tokens]:
    """BART's noise (Lewis et al. 2020, section 2.2): sentences permuted, spans replaced by one mask each.

    Lengths of spans are drawn from Poisson's distribution until ceil(density * n) tokens are hidden. A span of no
    tokens puts a mask in; there are never so many of these that the text grows.

    Args:
        tokens: [n], 1 or more. ends: [n], whether a sentence ends there.

    Returns:
        What is left, and the tokens themselves.
    """
    n = len(tokens)
    noisy = tokens
    if c.permute:
        sentences = np.split(tokens, np.flatnonzero(ends[:-1]) + 1)
        order: list[int] = random.permutation(len(sentences)).tolist()
        noisy = np.concatenate([sentences[place] for place in order])
    lengths, empty = _span_lengths(math.ceil(c.density * n), c.span, random)
    # Between two spans stands at least one token, else two masks would stand side by side and say how long they are.
    lengths = lengths[: n - int(lengths.sum()) + 1] if len(lengths) > n - int(lengths.sum()) + 1 else lengths
    gaps = _gaps(n - int(lengths.sum()), len(lengths), random)
    # Of the parts, one after the other, each second one is a span, and a mask stands for it.
    bounds = np.cumsum(np.insert(lengths, np.arange(len(lengths)), gaps[:-1]))
    parts = np.split(noisy, bounds)
    parts[1::2] = [np.array([mask_id])] * len(lengths)
    left = np.concatenate(parts)
    empty = min(empty, n - len(left))
    if empty:
        left = np.insert(left, random.integers(0, len(left) + 1, size=empty), mask_id)
    return left, tokens


def _divided(total: int, parts: int, random: np.random.Generator) -> NDArray[np.int64]:
    """`total` as a sum of so many numbers, 1 or more each; every way is equally likely."""
    bars = np.sort(random.choice(total - 1, size=parts - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], bars, [total]]))


def _gaps(total: int, spans: int, random: np.random.Generator) -> NDArray[np.int64]:
    """`total` as a sum of spans + 1 numbers: 1 or more between two spans, 0 or more at either end."""
    gaps = _divided(total + 2, spans + 1, random) if spans else np.array([total])
    if spans:
        gaps[0] -= 1
        gaps[-1] -= 1
    return gaps


def _span_lengths(total: int, mean: float, random: np.random.Generator) -> tuple[NDArray[np.int64], int]:
    """Lengths of the spans that are not empty, `total` together, and how many empty ones were drawn among them."""
    lengths: list[int] = []
    empty = 0
    while total > 0:
        length = min(int(random.poisson(mean)), total)
        empty += length == 0
        if length:
            lengths.append(length)
            total -= length
    return np.array(lengths, dtype=np.int64), empty
