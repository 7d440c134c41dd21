"""Vectors of words, from a text file as word2vec, GloVe and fastText write them: a word and its numbers on each line.

word2vec (Mikolov et al. 2013, https://arxiv.org/abs/1301.3781) and fastText put how many words and how many numbers
before the first, GloVe (Pennington et al. 2014, https://aclanthology.org/D14-1162) does not. Words come by frequency.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sublayer.errors import DataError
from sublayer.text.lines import read_lines

_SIZES = re.compile(r"(\d+) (\d+) *")


def read_vectors(path: Path, count: int | None = None) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The first `count` words of the file with their vectors [E], one at a time; all for None. *.gz and *.zst are
    unpacked.

    Raises:
        DataError: the file cannot be read, is not UTF-8, holds no vectors or fewer than its first line says, or has a
            line that is not a word and as many finite numbers as the first.
    """
    lines = enumerate(read_lines(path), start=1)
    first = list(islice(lines, 1))
    sizes = _SIZES.fullmatch(first[0][1]) if first else None
    words, width = (int(sizes[1]), int(sizes[2])) if sizes else (None, 0)
    read = 0
    for number, line in islice(lines if sizes else chain(first, lines), count):
        # The word may have spaces of its own: what is sure is how many numbers stand at the end.
        parts = line.rstrip(" ").rsplit(" ", width or -1)
        width = width or len(parts) - 1
        try:
            vector = np.array(parts[1:], dtype=np.float32)
        except ValueError:
            vector = np.empty(0, dtype=np.float32)
        if not width or len(vector) != width or not np.isfinite(vector).all():
            many = f"{width} finite numbers" if width else "finite numbers"
            raise DataError(
                f"{path}, line {number}: not a word and {many}",
                "Give vectors as text, as GloVe and fastText have them, or gensim's save_word2vec_format writes them.",
            )
        read += 1
        yield parts[0], vector
    if not read:
        raise DataError(f"{path} holds no vectors", "Name a file with a word and its numbers on each line.")
    if words is not None and read < words and read != count:
        raise DataError(f"{path} ends after {read:,} of {words:,} words", "Copy or write the file again, whole.")
