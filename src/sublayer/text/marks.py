"""What an encoder-decoder's two texts begin and end with: the same in training as in use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from sublayer.config import Decoding
from sublayer.errors import InputError
from sublayer.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Marks:
    """The tokens around a source and around a target.

    The encoder reads `before source after`; the decoder is fed `start forced target` and says `forced target end`.
    forced: what every target begins with, such as its language. pad: fills rows up; it is masked.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    start: int
    forced: tuple[int, ...]
    end: int
    pad: int

    @classmethod
    def of(cls, tokenizer: Tokenizer, c: Decoding) -> Self:
        """
        Raises:
            InputError: the tokenizer knows no such language, or has no end marker, or nothing to start with.
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
        around = reader.template
        # A tokenizer that puts nothing around texts, as one trained here for translation, leaves the end to us.
        after = around.after if around.added else (tokenizer.end_id,)
        return cls(around.before, after, start, forced, tokenizer.end_id, tokenizer.padding_id)

    def source(self, ids: list[int]) -> list[int]:
        """What the encoder reads."""
        return [*self.before, *ids, *self.after]

    @property
    def around_source(self) -> int:
        """How many tokens stand around a source."""
        return len(self.before) + len(self.after)

    @property
    def around_target(self) -> int:
        """How many tokens a decoder is fed, and says, beside a target's own."""
        return len(self.forced) + 1
