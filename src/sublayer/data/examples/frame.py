"""What stands around a text: what the tokenizer's template puts there, in training as in use."""

from __future__ import annotations

from dataclasses import dataclass

from sublayer.data.encoding import Ragged
from sublayer.text import Tokenizer


@dataclass(frozen=True)
class Frame:
    """Ids before a text and after it. pad_id: fills up a row."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    pad_id: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Frame:
        """What `Tokenizer.encode_marked` puts around a text."""
        template = tokenizer.template
        return cls(template.before, template.after, tokenizer.padding_id)

    @classmethod
    def of_documents(cls, tokenizer: Tokenizer) -> Frame:
        """The same for a text that a language model says: it ends with the end marker."""
        frame, end = cls.of(tokenizer), tokenizer.end_id
        return frame if end in frame.after else cls(frame.before, (*frame.after, end), frame.pad_id)

    @property
    def added(self) -> int:
        """How many tokens stand around one text."""
        return len(self.before) + len(self.after)

    def around(self, texts: Ragged) -> Ragged:
        """Each text with what stands around it."""
        return texts.within(self.before, self.after)
