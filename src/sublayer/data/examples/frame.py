"""What stands around a text that an encoder reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sublayer.data.encoding import Ragged
from sublayer.text import Tokenizer
from sublayer.text.specials import Slot, Template


@dataclass(frozen=True)
class Frame:
    """Ids before a text, after it, and between two texts that are read together.

    pad_id: fills up a row. kinds: whether a second text, and what stands after it, is of another kind (BERT's types).
    """

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    pad_id: int
    kinds: bool = True

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Frame:
        """`start text end`, and `start text end second end`."""
        start, end = tokenizer.start_id, tokenizer.end_id
        return cls((start,), (end,), (end,), tokenizer.pad_id)

    @classmethod
    def read(cls, tokenizer: Tokenizer) -> Frame:
        """What the tokenizer's own template puts around a text that an encoder reads, which its model has seen before;
        as `of` where it has none.
        """
        template = tokenizer.template
        if not template.added:
            return cls.of(tokenizer)
        slots = template.pair
        places = [place for place, slot in enumerate(slots) if slot.id is None]
        parts = (slots[: places[0]], slots[places[0] + 1 : places[1]], slots[places[1] + 1 :])
        before, between, after = (tuple(slot.id for slot in part if slot.id is not None) for part in parts)
        return cls(before, between, after, tokenizer.pad_id, kinds=slots[places[1]].type > 0)

    @property
    def template(self) -> Template:
        """The same as a tokenizer keeps it."""

        def slots(ids: tuple[int, ...], kind: int = 0) -> tuple[Slot, ...]:
            return tuple(Slot(id=each, type=kind) for each in ids)

        kind = int(self.kinds)
        one = (*slots(self.before), Slot(text=0), *slots(self.after))
        two = (*slots(self.before), Slot(text=0), *slots(self.between), Slot(text=1, type=kind))
        return Template(one, (*two, *slots(self.after, kind)))

    @property
    def added(self) -> int:
        """How many tokens stand around one text."""
        return len(self.before) + len(self.after)

    def around(self, texts: Ragged) -> Ragged:
        """Each text with what stands around it."""
        after = len(self.after)
        starts = np.concatenate([[0], np.cumsum(texts.lengths + self.added)]).astype(np.int64)
        tokens = np.empty(int(starts[-1]), dtype=np.int32)
        inside = np.ones(len(tokens), dtype=np.bool_)
        for place, identifier in enumerate(self.before):
            tokens[starts[:-1] + place] = identifier
            inside[starts[:-1] + place] = False
        for place, identifier in enumerate(self.after):
            tokens[starts[1:] - after + place] = identifier
            inside[starts[1:] - after + place] = False
        tokens[inside] = texts.tokens
        return Ragged(tokens, starts)

    def around_two(self, first: Ragged, second: Ragged) -> tuple[Ragged, NDArray[np.int64]]:
        """Each two texts with what stands around and between them, and where the second one begins: int64 [N]."""
        begins = first.lengths + len(self.before) + len(self.between)
        rows = [
            [*self.before, *first[row].tolist(), *self.between, *second[row].tolist(), *self.after]
            for row in range(len(first))
        ]
        return Ragged.of(rows), begins
