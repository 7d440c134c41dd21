"""Affixes: the tokens before and after a text, the same in training as in use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from sublayer.config.decoding import Decoding
from sublayer.errors import InputError
from sublayer.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Affixes:
    """The tokens before a text and after it. pad: fills up a row; it is masked."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    pad: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self:
        """Those of the tokenizer's template, as `Tokenizer.encode_with_special_tokens` adds them."""
        template = tokenizer.template
        return cls(template.before, template.after, tokenizer.padding_id)

    @classmethod
    def of_documents(cls, tokenizer: Tokenizer) -> Self:
        """The same for a text that a language model generates: it ends with the end token."""
        affixes, end = cls.of(tokenizer), tokenizer.end_id
        return affixes if end in affixes.after else cls(affixes.before, (*affixes.after, end), affixes.pad)

    def added_to(self, ids: Sequence[int]) -> list[int]:
        """A text with its affixes."""
        return [*self.before, *ids, *self.after]

    @property
    def length(self) -> int:
        """How many tokens they are."""
        return len(self.before) + len(self.after)


@dataclass(frozen=True)
class PairAffixes:
    """The affixes of an encoder-decoder's source and target.

    The encoder reads the source with its affixes; the decoder is fed `start forced target` and predicts
    `forced target end`. forced: what every target begins with, such as its language.
    """

    source: Affixes
    start: int
    forced: tuple[int, ...]
    end: int

    @classmethod
    def of(cls, tokenizer: Tokenizer, c: Decoding) -> Self:
        """
        Raises:
            InputError: the tokenizer knows no such language, or has no end token, or nothing to start with.
        """
        start = tokenizer.start_id if c.start is None else c.start
        forced = c.constraints.forced
        reader, languages = tokenizer, dict(tokenizer.specials.languages)
        in_source = {*tokenizer.template.before, *tokenizer.template.after} & set(languages.values())
        if c.source_language is not None:
            if not in_source:
                raise InputError(
                    f"source_language = '{c.source_language}', but this model is not told the language of its source",
                    "Leave it out.",
                )
            reader = tokenizer.for_language(c.source_language)
        if c.target_language is not None:
            told = tokenizer.language_id(c.target_language)
            if not in_source:
                # Marian is told in the source what to write.
                reader = tokenizer.for_language(c.target_language)
            elif start in languages.values():
                start = told
            else:
                forced = (told, *(token for token in forced if token not in languages.values()))
        template = reader.template
        # A tokenizer that adds nothing, as one trained here for translation, leaves the end to us.
        ends = (tokenizer.end_id,) if c.source_end else ()
        after = template.after if template.added else ends
        return cls(Affixes(template.before, after, tokenizer.padding_id), start, forced, tokenizer.end_id)

    @property
    def pad(self) -> int:
        """What fills up rows."""
        return self.source.pad

    @property
    def target_length(self) -> int:
        """How many tokens a decoder is fed, and predicts, beside a target's own."""
        return len(self.forced) + 1
