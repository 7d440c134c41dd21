"""The tree of a tokenizer that is trained: what a text is cut into, and how it is normalized before.

One tokenizer serves both sides of a pair, and is trained on the training text.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from sublayer.config.part import Part

__all__ = ["Bytes", "Characters", "Normalization", "Subwords", "TokenizerRecipe", "Words"]

SMALLEST = 5
"""The fewest tokens of a vocabulary: the four special tokens that every tokenizer has, and one of the text."""


class Normalization(Part):
    """What is done to every text before it is cut, in training and in use, in the order of the fields.

    unicode: a Unicode normalization form, so that one text has one spelling: NFC composes letters and accents, NFKC
    also makes plain letters of ligatures, full-width letters and the like; unset leaves the text as it is.
    lowercase: letters become lower-case letters. strip_accents: accents and all other combining marks are removed.
    zero_digits: every decimal digit becomes 0 (Collobert et al. 2011).
    collapse_whitespace: white space of any length, line ends included, becomes one space, and none is left at the ends.
    """

    unicode: Literal["NFC", "NFD", "NFKC", "NFKD"] | None = None
    lowercase: bool = False
    strip_accents: bool = False
    zero_digits: bool = False
    collapse_whitespace: bool = False


class Subwords(Part):
    """Pieces of words. Any text comes back as it was normalized.

    type: "bpe" is byte-level BPE, "unigram" is SentencePiece's unigram model with byte fallback, "sentencepiece" the
    same read exactly as SentencePiece reads it, so that it can be exported as its .model file (for Argos Translate) and
    for llama.cpp; in a text "▁" is then a space.
    vocab_size: tokens at most, special tokens included.
    sample: how many lines to train on at most (evenly spread); unset means all.
    """

    type: Literal["bpe", "unigram", "sentencepiece"] = "bpe"
    vocab_size: Annotated[int, Field(ge=300)] = 8000
    sample: PositiveInt | None = None
    normalization: Normalization = Normalization()


class Words(Part):
    """Whole words; a word that is not in the vocabulary is the unknown token.

    Decoding joins the words with single spaces, keeps the ends of lines, and leaves unknown words out. A model that
    writes text may write the unknown token; to prevent it, ban it (`constraints.banned`).

    split: "punctuation" separates words, numbers and each other sign; "whitespace" cuts at white space only, for text
    whose words are already separated, as in TREC, CoNLL or the Penn Treebank. The end of a line is a word in both.
    vocab_size: tokens at most, special tokens included, the most frequent first; unset means all.
    min_frequency: how often a word occurs in the training text, at least. With 1 and no vocab_size there is no unknown
    word in training, so the model learns nothing about the unknown token.
    sample: how many lines to train on at most (evenly spread); unset means all.
    """

    type: Literal["words"] = "words"
    split: Literal["punctuation", "whitespace"] = "punctuation"
    vocab_size: Annotated[int, Field(ge=SMALLEST)] | None = None
    min_frequency: PositiveInt = 2
    sample: PositiveInt | None = None
    normalization: Normalization = Normalization()


class Characters(Part):
    """One token for each character (Unicode code point); one that is not in the vocabulary is the unknown token.

    Text of known characters comes back as it was normalized; decoding leaves unknown characters out.

    vocab_size: tokens at most, special tokens included, the most frequent first; unset means all.
    min_frequency: how often a character occurs in the training text, at least.
    sample: how many lines to train on at most (evenly spread); unset means all.
    """

    type: Literal["characters"] = "characters"
    vocab_size: Annotated[int, Field(ge=SMALLEST)] | None = None
    min_frequency: PositiveInt = 1
    sample: PositiveInt | None = None
    normalization: Normalization = Normalization()


class Bytes(Part):
    """One token for each of the 256 bytes of UTF-8, as ByT5 has them. Any text comes back as it was normalized."""

    type: Literal["bytes"] = "bytes"
    normalization: Normalization = Normalization()

    @property
    def vocab_size(self) -> int:
        """How many tokens there are beside what a task adds (a mask, say): 256 and four special tokens."""
        return 256 + SMALLEST - 1


TokenizerRecipe = Annotated[Subwords | Words | Characters | Bytes, Field(discriminator="type")]
