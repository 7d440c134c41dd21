"""What noise asks of a vocabulary: which tokens are special, begin a word, or end a sentence.

Shapes: V tokens in the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sublayer.errors import ConfigError
from sublayer.text import Tokenizer
from sublayer.text.pieces import SPACE

MASK = "<mask>"
CONTINUES = "##"
ENDS = tuple(".!?…。！？")


def sentinel_tokens(count: int) -> tuple[str, ...]:
    """The names of T5's sentinels."""
    return tuple(f"<extra_id_{number}>" for number in range(count))


def mask_id(tokenizer: Tokenizer) -> int:
    """
    Raises:
        ConfigError: the tokenizer has no mask token.
    """
    if tokenizer.specials.mask is not None:
        return tokenizer.specials.mask
    raise ConfigError(
        "the tokenizer of start.path has no mask token", "Start from a model that was trained with one, or from none."
    )


def sentinel_ids(tokenizer: Tokenizer, count: int) -> NDArray[np.int64]:
    """
    Raises:
        ConfigError: the tokenizer lacks one of the sentinels.
    """
    found: list[int] = []
    for token in sentinel_tokens(count):
        one = tokenizer.special_id(token)
        if one is None:
            raise ConfigError(
                f"the tokenizer of start.path has no {token}, and task.sentinels = {count}",
                "Lower task.sentinels, start from a model that has them, or from none.",
            )
        found.append(one)
    return np.array(found, dtype=np.int64)


def plain_ids(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """The tokens that are not special."""
    special = np.array(sorted(tokenizer.special_ids), dtype=np.int64)
    return np.setdiff1d(np.arange(tokenizer.vocab_size), special)


@dataclass(frozen=True)
class Words:
    """Where words begin. spaced, sign: bool [V], tokens with a space before them; tokens without letter or digit."""

    spaced: NDArray[np.bool_]
    sign: NDArray[np.bool_]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Words:
        pieces = tokenizer.pieces(range(tokenizer.vocab_size))
        bodies = [piece.strip(SPACE) for piece in pieces]
        spaced = np.array([piece.startswith(SPACE) for piece in pieces])
        if not spaced.any():
            # A vocabulary that marks what goes on, as BERT's, not what begins.
            spaced = np.array([not piece.startswith(CONTINUES) for piece in pieces])
        return cls(spaced, np.array([not any(map(str.isalnum, body)) for body in bodies]))

    def starts(self, tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether a word begins at each token: after a space, at a sign, and after one. Shape: [n] -> [n]."""
        begins = self.spaced[tokens] | self.sign[tokens]
        begins[1:] |= self.sign[tokens[:-1]]
        begins[0] = True
        return begins


def sentence_ends(tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """Tokens that end a sentence: a full stop or the like, or the end of a line. Bool [V]."""
    texts = tokenizer.decode([[token] for token in range(tokenizer.vocab_size)])
    return np.array([text.rstrip().endswith(ENDS) or "\n" in text for text in texts])
