"""What search asks of texts that are decoded together, and all that it asks: numbers and lists, whoever computes them.

A model steps them as `ModelBatch` (`model_batch.py`), with torch; the engine alone as `EngineBatch`
(`engine_batch.py`), without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]
Places = NDArray[np.int64]
"""Of tokens in a vocabulary, or of numbers in a row."""


class Ranked(NamedTuple):
    """The best continuations of each row, best first.

    gained: log-probabilities under the constraints, float32 [R, n]. own: the model's own. tokens: int64 [R, n].
    """

    gained: Scores
    own: Scores
    tokens: Places


class Chosen(NamedTuple):
    """One token for each row; its log-probability, if asked for; whether the constraints allow it."""

    tokens: list[int]
    gained: list[float]
    allowed: list[bool]


class Batch(Protocol):
    """Texts that are decoded together; row b * num_beams + r is hypothesis r of sentence b.

    rank: feed a token a row, and rank what may follow, `count` a row at most. choose: feed a token a row, and choose
    what follows; `rows` are the numbers of the rows in what was asked for, `step` counts the tokens chosen so far.
    reorder: row i goes on from what row rows[i] was. keep: go on with these sentences only. restart: go on from these
    texts, read anew, each a sentence with one row; room for `capacity` more tokens. refuse: raise for numbers that
    are not finite.
    """

    def rank(self, tokens: Sequence[int], count: int) -> Ranked: ...

    def choose(self, tokens: Sequence[int], rows: Sequence[int], step: int) -> Chosen: ...

    def reorder(self, rows: Sequence[int]) -> None: ...

    def keep(self, sentences: Sequence[int]) -> None: ...

    def restart(self, texts: Sequence[Sequence[int]], capacity: int) -> None: ...

    def refuse(self, step: int) -> NoReturn: ...
