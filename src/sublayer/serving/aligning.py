"""Which words of a sentence became which of its translation, by the characters that tokens stand for."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from sublayer.errors import InputError
from sublayer.generation.alignment import alignments
from sublayer.generation.translator import Translator
from sublayer.serving.placing import Aligned, Floats
from sublayer.text import Tokenizer


def aligned(
    translator: Translator, sources: Sequence[tuple[str, list[int]]], targets: Sequence[Sequence[int]]
) -> list[Aligned]:
    """Sentences and their translations, aligned by the model's attention.

    Where a model has none, a word is taken to have become the one that is as far into the translation.

    Args:
        sources: texts, and their ids as the encoder reads them. targets: ids without markers.
    """
    try:
        ids = [ids for _, ids in sources]
        maps = alignments(translator.model, ids, targets, start_id=translator.affixes.start)
    except InputError:
        maps = [diagonal(len(target), len(ids)) for (_, ids), target in zip(sources, targets, strict=True)]
    return [
        Aligned(spans_of(translator, text), starts_of(translator.tokenizer, target), np.asarray(weights, np.float64))
        for (text, _), target, weights in zip(sources, targets, maps, strict=True)
    ]


def diagonal(targets: int, sources: int) -> Floats:
    """Weights of a translation that goes through its sentence at an even pace."""
    looked_at = (np.arange(targets) * 2 + 1) * sources // (2 * max(targets, 1))
    return np.eye(sources)[looked_at]


def spans_of(translator: Translator, sentence: str) -> list[tuple[int, int]]:
    """The characters that each token of a source stands for, without the spaces around them."""
    [tokens] = translator.tokenizer.tokens([sentence], add_special_tokens=False)
    own = translator.affixes.source
    spans = [(0, 0)] * len(own.before)
    for begin, end in tokens.spans:
        part = sentence[begin:end]
        spans.append((begin + len(part) - len(part.lstrip()), begin + len(part.rstrip())))
    return spans + [(0, 0)] * len(own.after)


def starts_of(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[int]:
    """Where each token of a translation begins in its text, which has no white space around it."""
    stream = tokenizer.stream()
    parts = [stream.push([token]) for token in tokens]
    text = "".join(parts) + stream.finish()
    before, most = len(text) - len(text.lstrip()), len(text.strip())
    begins = [0, *itertools.accumulate(map(len, parts))][:-1]
    return [min(max(begin - before, 0), most) for begin in begins]
